"""Attention whose softmax is a learned function of its logits (KArAt)."""
