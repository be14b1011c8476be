"""What trainings and measurements are asked for, declared once: the options of the commands, and the recipes themselves."""
