"""Detection and segmentation heads of other libraries on our backbones."""
