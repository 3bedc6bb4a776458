"""Losses of the paper as pure functions of tensors; which rank holds what is the stages' concern."""
