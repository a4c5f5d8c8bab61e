"""Which clips make a batch: the plan of all batches, the rules for clips, the choice of subjects and views."""
