"""The parts of training that detection and segmentation share."""
