"""THE LOOP: batches, steps, and the model folder as a torch module."""
