"""Studies: long simulations and trainings, each against its laws."""
