"""What trainings and measurements are asked for, declared once: options of the commands, and the recipes themselves."""
