"""The Bayesian Photometry Neural Network (section 3.3.2 of the paper): network, inputs, ELBO, prediction."""
