"""Words of pykan's, in the first cells of its page: each works, or is answered by the words to write."""

import inspect
import re

import pytest
import torch

from kat_zoo.kan import KAN
from kat_zoo.kan.migration import ARGUMENTS, NAMES
from kat_zoo.kan.operations import structure

from .pages import X, Y, rows

# Functions of pykan's modules are no words of a model: whoever imports one is told by Python, and by the page.
FUNCTIONS = """
KAN fit_params ex_round lambdify add_symbolic plot_tree create_dataset create_dataset_from_data expr2kan batch_jacobian batch_hessian
get_derivative detect_separability test_symmetry test_separability test_general_separability get_dependence test_symmetry_var
get_molecule KANLayer Symbolic_KANLayer B_batch coef2curve curve2coef extend_grid batch_grad_normgrad get_tree_node sparse_mask
model2param get_feynman_dataset runner1 pareto_frontier MLP
""".split()  # noqa: SIM905 (a paragraph is read more easily)


def words_of_pykan():
    code = re.findall(r"`([^`]*)`", " ".join(row[0] for row in rows("pykan")))
    return sorted({*re.findall(r"[A-Za-z_]\w*", " ".join(code))} - {"LBFGS", "False", "compile", "l", "i", "j"})


def answer(word):
    """The answer to a word of pykan's, as an attribute of a model or as an argument of one of its methods."""
    model = KAN([2, 1])
    answers = []
    calls = (
        lambda: getattr(model, word),
        lambda: KAN([2, 1], **{word: 1}),
        lambda: model.fit(X, Y, **{word: 1}, steps="refused"),
        lambda: model.refine(**{word: 3}),
        lambda: model.plot(X, **{word: 1}),
        lambda: model.formula(**{word: 1}),
        lambda: model.auto_symbolic(X, **{word: 1}, steps="refused"),
        lambda: model.fix_symbolic(0, 0, 0, **{word: "x"}),
    )
    for call in calls:
        try:
            call()
        except (AttributeError, TypeError, ValueError) as error:
            answers.append(str(error))
        else:
            return "works"
    return next((text for text in answers if f"{word} is pykan's: expected" in text or f"{word}= is pykan's: expected" in text), None)


KNOWN = {
    *inspect.signature(KAN.fit).parameters,
    *inspect.signature(KAN).parameters,
    *inspect.signature(KAN.plot).parameters,
    *inspect.signature(KAN.auto_symbolic).parameters,
}


@pytest.mark.parametrize("word", words_of_pykan())
def test_a_word_of_pykan_works_or_is_answered(word):
    if word in FUNCTIONS or word in KNOWN or word == "dataset":  # dataset: tests/kan/test_migration.py
        return
    told = answer(word)
    assert told, f"{word}: expected a method, an argument, or words to write instead"
    if told != "works":
        assert (NAMES | ARGUMENTS)[word] in told


def words_of_methods():
    """Pairs of a method that is here and a word of pykan's for one of its arguments, which is not."""
    calls = re.findall(r"`(\w+)\(([^)]*)\)`", " ".join(row[0] for row in rows("pykan")))
    pairs = [(name, re.match(r"\w+", word)[0]) for name, listed in calls if hasattr(KAN, name) for word in listed.split(", ")]
    pairs += [("prune", "node_th"), ("prune", "edge_th")]
    return [pair for pair in pairs if pair[1] not in {*inspect.signature(getattr(KAN, pair[0])).parameters, "dataset", "l"}]


@pytest.mark.parametrize(("method", "word"), words_of_methods())
def test_a_method_answers_the_words_of_its_row(method, word):
    call = getattr(KAN([2, 1]), method)
    samples = {"X": X} if "X" in inspect.signature(call).parameters else {}
    with pytest.raises(TypeError, match=f"^{word}= is pykan's: expected {re.escape(ARGUMENTS[word])}$"):
        call(**samples, **{word: 1})


@pytest.mark.parametrize("words", [*NAMES.values(), *ARGUMENTS.values()])
def test_words_to_write_exist(words):
    """Methods, attributes and arguments that an answer names."""
    model = KAN([2, 1])
    for name in re.findall(r"\b(?:model|KAN)\.([a-z_]+)", words):
        assert hasattr(model, name), words
    for name in re.findall(r"(?<![.\w])([a-z_]+)\(", words):
        assert name in ("model", "requires_grad_") or hasattr(model, name), words
    arguments = {*KNOWN, *inspect.signature(KAN.suggest_symbolic).parameters, *inspect.signature(KAN.prune).parameters}
    arguments |= {*inspect.signature(KAN.fix_symbolic).parameters, *inspect.signature(KAN.update_grid).parameters}
    for name in re.findall(r"\b([A-Za-z_0-9]+)=", words):
        assert name in arguments, words
    for name in re.findall(r"kat_zoo\.kan\.operations\.structure\.(\w+)", words):
        assert hasattr(structure, name), words


def test_a_checkpoint_of_pykan_is_not_read(tmp_path):
    torch.save(KAN([2, 1]).state_dict(), tmp_path / "mark_state")
    (tmp_path / "mark_config.yml").write_text("width: [2, 1]")
    for name in ("mark_state", "mark_config.yml"):
        with pytest.raises(ValueError, match="is not a safetensors file"):
            KAN.load(tmp_path / name)
