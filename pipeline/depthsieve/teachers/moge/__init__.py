"""MoGe-2: metric geometry of one image with a mask, and the camera that it takes the image to be from."""
