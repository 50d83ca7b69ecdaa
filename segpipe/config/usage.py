"""How each command is called: the text above its keys in `--help`."""

USAGE = {
    "train": """\
Trains a segmentation network on a folder of scans.

  {command}                                          on a generated phantom, no data needed
  {command} data=decathlon data.root=DIR             on a local dataset (layouts: data/README.md)
  {command} -m model.long_skips=none,add,concat      one run for each value (a sweep)
  {command} study=long_skips                         a study: variants, seeds and a report
  {command} resume=runs/NAME/DATE_TIME               goes on where a run, or a sweep, stopped
  {command} --help model.long_skips                  the values of a key, a group or a choice
  {command} --cfg job                                every value, as it would be used""",
    "predict": """\
Writes a mask for each scan, on the scan's own grid.

  {command} checkpoint=runs/NAME/DATE_TIME input=SCANS output=MASKS
  {command} --help overlap                           which values a key can take

Exit status: 0 all done, 2 wrong usage or config, 3 some scans failed (listed), 1 anything else.""",
    "lesion": """\
What a trained network takes from each of its long skips: Dice and NSD lost without it.

  {command} checkpoint=runs/NAME/DATE_TIME

Of MONAI's networks it takes those whose skips enter a module of their own: UNet, AttentionUnet,
BasicUNet, BasicUNetPlusPlus, DynUNet, VNet, UNETR and SwinUNETR.""",
    "landscape": """\
The loss around trained networks, along random directions that are normalised by filter (Li 2018).

  {command} checkpoint=[RUN,RUN] max_time=00:00:05:00

Directions move the weights of convolutions and linear layers. A filter is what makes one output
channel, the second axis of a transposed convolution. Biases, norms and running statistics stay.""",
    "robustness": """\
Dice of trained networks against ever more blur, noise, bias field and lost resolution.

  {command} checkpoint=[RUN,RUN]""",
    "evaluate": """\
Scores masks of any tool against truths: metrics, page, tables and JSON as of a run.

  {command} prediction=MASKS truth=LABELS output=FOLDER
  {command} prediction=MASKS truth=LABELS labels={{liver:1,tumour:2}} output=FOLDER
  {command} prediction='MASKS/{{{{case}}}}/seg.nii.gz' truth=LABELS output=FOLDER
  {command} prediction=TABLE output=FOLDER

Exit status: 0 all scored, 2 wrong usage or config, 3 some cases were refused (listed), 1 else.""",
    "report": """\
Compares the variants of a sweep: study.html, study.md and study.csv in its folder.

  {command} sweep=runs/NAME/DATE_TIME""",
    "compare": """\
Compares systems case by case, on the cases that all of them have scored.

  {command} RUN RUN                             runs, also of different splits
  {command} MASKS EVALUATION margin=0.01        folders of predict.py, of segpipe.evaluate
  {command} a/scores.csv b/scores.csv names=[ours,theirs]""",
    "card": """\
What a checkpoint says of itself: labels, plan, data, Dice, and the command to use it.

  {command} checkpoint=runs/NAME/DATE_TIME""",
    "export": """\
Writes a trained network as ONNX, for any batch and size, and checks it against PyTorch.

  {command} checkpoint=runs/NAME/DATE_TIME output=network.onnx""",
    "import_nnunet": """\
Writes networks that nnU-Net v2 has trained as checkpoints of segpipe, with nnU-Net's own rules.

  {command} results=nnUNetTrainer__nnUNetPlans__3d_fullres output=organ.ckpt
  {command} results=FOLDER output=organ.ckpt folds=0 checkpoint=best

Read are PlainConvUNet and ResidualEncoderUNet in 2D and 3D; of a cascade, its first stage.""",
    "depth": """\
The gradient of each layer of a deep network at initialisation, with and without each kind of skip.

  {command}
  {command} model.activation=elu init=he""",
}
