"""What is written of a model's predictions for a video: tables, subtitles, the video with its predictions drawn over it, a plot."""
