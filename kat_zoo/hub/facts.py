"""Facts about data sets and families of models, for the model cards."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """A data set, as a card speaks of it.

    Attributes:
        title: its name.
        hub_id: its repository on the Hub.
        bias: bias that its choice of images gives a model.
    """

    title: str
    hub_id: str
    bias: str


PHOTOGRAPHS = "Tiny photographs of ten or a hundred kinds of things, collected from image search in the 2000s; labels are noisy."
DATASETS = {
    "cifar10": Dataset("CIFAR-10", "uoft-cs/cifar10", PHOTOGRAPHS),
    "cifar100": Dataset("CIFAR-100", "uoft-cs/cifar100", PHOTOGRAPHS),
    "imagenet-1k": Dataset(
        "ImageNet-1K",
        "ILSVRC/imagenet-1k",
        "ImageNet-1K was collected from English-language image search; its classes and photographs over-represent North "
        "America and Europe, more than a hundred classes are dog breeds, and people appear in stereotyped roles. About 6 % of its "
        "validation labels are wrong (Northcutt et al., 2021). The model inherits all of it.",
    ),
    "fashion_mnist": Dataset(
        "Fashion-MNIST",
        "zalando-datasets/fashion_mnist",
        "Fashion-MNIST holds one European retailer's studio photographs of 2017, in ten classes, on a plain background. "
        "T-shirts, pullovers, coats and shirts are hard to tell apart at 28 x 28, for people as well.",
    ),
}


@dataclass(frozen=True)
class Family:
    """The models of one paper.

    Attributes:
        description: description of the architecture.
        paper: title and address.
        citation: BibTeX.
    """

    description: str
    paper: str
    citation: str


FAMILIES = {
    "kat": Family(
        "A Kolmogorov-Arnold Transformer (KAT): a vision transformer whose MLPs are group-rational KAN layers. The "
        "activation of each of 8 channel groups is a learned rational function P(x)/Q(x), of degrees 5 and 4 unless said otherwise.",
        "[Kolmogorov-Arnold Transformer](https://arxiv.org/abs/2409.10594) (Yang and Wang, ICLR 2025)",
        "@inproceedings{yang2025kolmogorov,\n"
        "  title={Kolmogorov-Arnold Transformer},\n"
        "  author={Yang, Xingyi and Wang, Xinchao},\n"
        "  booktitle={International Conference on Learning Representations},\n"
        "  year={2025}\n}",
    ),
    "karat": Family(
        "A vision transformer with Fourier Kolmogorov-Arnold attention (Fourier-KArAt): the softmax of every head is "
        "replaced by a learned function of low rank, a Fourier series on every edge between tokens.",
        "[Kolmogorov-Arnold Attention](https://arxiv.org/abs/2503.10632) (Maity, Hitsman, Li and Dutta, 2025)",
        "@article{maity2025kolmogorov,\n"
        "  title={Kolmogorov-Arnold Attention: Is Learnable Attention Better For Vision Transformers?},\n"
        "  author={Maity, Subhajit and Hitsman, Killian and Li, Xin and Dutta, Aritra},\n"
        "  journal={arXiv preprint arXiv:2503.10632},\n"
        "  year={2025}\n}",
    ),
    "vit": Family(
        "A vision transformer, the twin of another model of this package from which it differs in one thing, the channel mixer.",
        "[An Image is Worth 16x16 Words](https://arxiv.org/abs/2010.11929) (Dosovitskiy et al., ICLR 2021)",
        "@inproceedings{dosovitskiy2021image,\n"
        "  title={An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},\n"
        "  author={Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and others},\n"
        "  booktitle={International Conference on Learning Representations},\n"
        "  year={2021}\n}",
    ),
    "vit_kan": Family(
        "A vision transformer whose perceptrons are two B-spline KAN layers of the tokens' width, 8 cubic bases an edge (7 in the pico "
        "model): the ViT + KAN baseline of KAT's paper. The paper's table counts 12.8M, 50.4M and 199.8M parameters at the tiny, small and "
        "base size, with a perceptron that is built and never used; without it they are 9.25M, 36.2M and 143.2M.",
        "[KAN: Kolmogorov-Arnold Networks](https://arxiv.org/abs/2404.19756) (Liu et al., ICLR 2025), "
        "[Kolmogorov-Arnold Transformer](https://arxiv.org/abs/2409.10594)",
        "@inproceedings{liu2025kan,\n"
        "  title={{KAN}: Kolmogorov-Arnold Networks},\n"
        "  author={Liu, Ziming and Wang, Yixuan and Vaidya, Sachin and Ruehle, Fabian and others},\n"
        "  booktitle={International Conference on Learning Representations},\n"
        "  year={2025}\n}",
    ),
    "kat_mixer": Family(
        "An MLP-Mixer whose perceptrons, over tokens and over channels, are group-rational KAN layers.",
        "[MLP-Mixer](https://arxiv.org/abs/2105.01601) (Tolstikhin et al., NeurIPS 2021)",
        "@inproceedings{tolstikhin2021mixer,\n"
        "  title={{MLP-Mixer}: An all-{MLP} Architecture for Vision},\n"
        "  author={Tolstikhin, Ilya and Houlsby, Neil and Kolesnikov, Alexander and others},\n"
        "  booktitle={Advances in Neural Information Processing Systems},\n"
        "  year={2021}\n}",
    ),
}


# Weights that were made of others, without training.
DERIVED = {
    "kat_pico_patch4_28.fmnist_rgb": (
        "Not trained: these are the weights of `kat_pico_patch4_28.fmnist`, which sees gray images, with a first layer that "
        "looks at colors. Its weights go in parts of a quarter, a half and a quarter to red, green and blue, so that an image "
        "with three channels that are alike gets the logits of the gray model. Colors were never seen in training. It is meant "
        "for programs that give three channels to every model, as transformers' pipelines and timm's scripts do."
    )
}


def family(name: str) -> Family | None:
    """The family of a model: of those whose key begins its name, the one with the longest key; None if there is none."""
    keys = [key for key in FAMILIES if f"{name.removeprefix('test_')}_".startswith(f"{key}_")]
    return FAMILIES[max(keys, key=len)] if keys else None


def dataset(name: str) -> Dataset:
    """A data set by name; of one not listed, no more than that it is on the Hub if it is called `org/name`."""
    return DATASETS.get(name) or Dataset(name, name if "/" in name else "", "")
