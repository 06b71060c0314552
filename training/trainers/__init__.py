"""One loop of steps for every training, and what each training does in it."""
