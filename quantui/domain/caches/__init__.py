"""What takes the disk, what deleting it frees, what may go and what stays. Pure: sizes come from runtime/caches."""
