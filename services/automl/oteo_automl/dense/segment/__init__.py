"""What semantic and instance segmentation share: truths, targets, augmentation, losses, networks."""
