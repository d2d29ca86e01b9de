"""What readers say of answers: how right a deployment is in use, and labelled samples where there is consent."""
