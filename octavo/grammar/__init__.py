"""What an answer must be: a notation in, the tokens that may come next out."""
