"""Detection and segmentation heads of other libraries on plain ViTs of the zoo and timm; each name imports its library when it is used."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .backbone import accept_any_size as accept_any_size
    from .detection import faster_rcnn as faster_rcnn
    from .detection import fcos as fcos
    from .detection import mask_rcnn as mask_rcnn
    from .detection import retinanet as retinanet
    from .features import ViTFeatures as ViTFeatures
    from .pyramid import SimpleFeaturePyramid as SimpleFeaturePyramid
    from .segmentation import dpt as dpt
    from .segmentation import upernet as upernet

__all__ = ["SimpleFeaturePyramid", "ViTFeatures", "accept_any_size", "dpt", "faster_rcnn", "fcos", "mask_rcnn", "retinanet", "upernet"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "accept_any_size": "backbone",
        "faster_rcnn": "detection",
        "fcos": "detection",
        "mask_rcnn": "detection",
        "retinanet": "detection",
        "ViTFeatures": "features",
        "SimpleFeaturePyramid": "pyramid",
        "dpt": "segmentation",
        "upernet": "segmentation",
    },
    extra="dense",
)
