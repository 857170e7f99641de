"""What takes the disk, measured; what may be deleted, deleted; what was made, verified."""
