"""Single stars: the refinement step of the detection net and the Bayesian Photometry Neural Network (section 3.3.2)."""
