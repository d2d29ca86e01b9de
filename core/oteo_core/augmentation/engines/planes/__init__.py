"""What the second engine does with tensors, a module a kind of transform; importing one of them imports torch and kornia.

A step is a function ``step(planes, work)``: `planes` is ``(N, C, H, W)`` float32 in the scale of the work, images of one size; it gives
the changed planes, as one tensor or, where their sizes differ, as a list of ``(C, H, W)``. What came in is left as it is.
"""
