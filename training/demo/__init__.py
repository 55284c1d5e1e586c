"""What ``clipstep demo`` starts from: ``fight/``, clips of a real data set, and ``network/``, a run trained on 176 videos of that data set."""
