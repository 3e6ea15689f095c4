# A small sweep that needs no download: about half an hour on two cores. It shows the machinery and
# compares nothing: methods with more options have more trials.
#     python tools/sweep.py run digits --workers 2
backbone = 'vit-mini'
methods = ['linear', 'lora', 'gleam-t']
datasets = ['mini-digits']
grid = dict(alpha=[1, 10], top_k=[2, 3])
seeds = 2
