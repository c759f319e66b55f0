"""What users say of answers: indicators of a service, complaints that say the same, whether a repair helped."""
