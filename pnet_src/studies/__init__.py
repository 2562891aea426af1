"""What compares and times PNet: ablations, speed, stress, repeats; imports pnet and is never imported by it."""
