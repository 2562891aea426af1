"""Single stars: what the refinement step of the detection net and the BPNN both see of a star."""
