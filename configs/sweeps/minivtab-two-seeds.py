# The two tasks on which final trainings of the second edition ended at chance, each point of the
# grid trained with two seeds.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-b', 'lora-all']
datasets = ['mini-cells', 'mini-count']
trial_seeds = 2
