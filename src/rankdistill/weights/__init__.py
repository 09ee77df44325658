"""Files of weights: written so that they survive, and read whoever wrote them."""
