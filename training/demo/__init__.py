"""What ``clipstep demo`` starts from: ``fight/``, 40 real clips, and ``network/``, a run trained on 176 of the data set they are from."""
