"""Every setting, with the release's value as its default. `validate` reports all that is wrong at once.

Nothing heavy is imported here: a mistake in a config is told before JAX starts.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from dgnet_jax import config_rules


class UserError(Exception):
  """Something that a person can put right. The message says what and how; it is shown without a traceback."""


class MissingSplit(UserError):
  """The data set is sound, but a part that the work needs is not there."""


class Interrupted(Exception):
  """The run was asked to stop, and has saved its state. The message says how to go on."""


class ConfigError(UserError):
  """All that is wrong with a configuration; `problems` has one line each."""

  def __init__(self, problems: Sequence[str]) -> None:
    self.problems = tuple(problems)
    count = 'a problem' if len(self.problems) == 1 else f'{len(self.problems)} problems'
    super().__init__('\n  '.join([f'{count} in the configuration:', *self.problems]))


def default_config() -> ConfigDict:
  """The release's Market-1501 configuration; files under configs/ change what differs."""
  config = ConfigDict()
  config.seed = 0  # all randomness is a function of (seed, step)
  config.batch_size = 8  # images per stream and step, over all devices; a step sees 4 times as many pictures
  config.num_steps = 100_000  # length of the run, in iterations
  # False: nothing is generated, and the re-id network learns alone, from real pictures only, with everything else as it
  # is: what joint learning is compared with (tools/ablation.py). Style AB only. See teaching.pictures.
  config.joint = True
  config.compute_dtype = 'float32'  # float32 or bfloat16: what convolutions compute in; parameters stay float32

  config.data = ConfigDict()
  # A name of dgnet_jax/data/layouts.py: market1501, dukemtmc, msmt17, cuhk03, veri776, synthetic (rendered on first
  # use), release (its folders), folders (a folder for each identity) or csv (a table).
  config.data.layout = 'market1501'
  config.data.root = ''  # folder of the data set; csv: the file; synthetic: '' is <workdir>/synthetic_data
  config.data.boxes = 'detected'  # detected or labeled: whose boxes cut the pictures out; cuhk03 only
  config.data.train_with_val = True  # train on the data set's validation part too; msmt17 and release only
  # Pattern (a regular expression) with a group `camera` that is searched in file names: cam(?P<camera>\d+); '' knows
  # no cameras, and then every gallery picture of a query's person is a match. Layout folders only.
  config.data.camera_pattern = ''
  # tfdata (decode while training), threads (the same without TensorFlow) or memory (decode once, keep all).
  config.data.loader = 'tfdata'
  config.data.cache_mib = 2048  # loader threads: MiB of undecoded files kept in memory
  config.data.image_size_hw = (256, 128)  # height and width of training pictures, pixels
  config.data.prefetch_batches = 4  # batches that tf.data keeps ready
  config.data.decode_threads = 8  # pictures decoded at a time

  config.data.synthetic = ConfigDict()
  config.data.synthetic.seed = 0  # the rendered people and photos are a function of this seed and the sizes below
  config.data.synthetic.num_train_identities = 64  # people in bounding_box_train
  config.data.synthetic.num_test_identities = 32  # other people, in query and bounding_box_test
  config.data.synthetic.photos_per_identity = 16  # photos of each person, spread over the cameras
  # Fewest and most of the six cameras that see a person; at most one for every two photos, but always two.
  config.data.synthetic.cameras_per_identity = (4, 6)
  config.data.synthetic.num_distractors = 32  # gallery photos of people nobody asks for (identity 0000)
  config.data.synthetic.num_junk = 16  # gallery crops without a usable person (identity -1)
  config.data.synthetic.image_size_hw = (128, 64)  # pixels of the files

  config.augment = ConfigDict()
  config.augment.flip_prob = 0.5  # chance of a horizontal mirror, for image and positive independently
  config.augment.crop_padding = 10  # pixels of edge replication on each side before the random crop
  config.augment.random_erasing_prob = 0.5  # chance that the re-id network's copy has a rectangle erased (erasing_p)

  config.generator = ConfigDict()  # what structure encoder and decoder share
  config.generator.activation = 'leaky_relu'  # leaky_relu (slope 0.2), relu, prelu, selu or tanh
  config.generator.padding = 'reflect'  # reflect or zero
  config.generator.non_local_residual = False  # a non-local block at the end of every residual block

  config.structure_encoder = ConfigDict()
  config.structure_encoder.input = 'gray'  # gray (mean of the channels) or edge (Canny; no gradient reaches the image)
  config.structure_encoder.edge_noise = 0.1  # deviation of the noise on edges (-0.5, 0.5) in training; in no golden
  config.structure_encoder.width = 16  # channels of the first layer; the code has 8 times as many
  config.structure_encoder.num_res_blocks = 4  # residual blocks at a quarter of the image size
  config.structure_encoder.dilations = (3, 6, 9)  # ASPP; the largest must be smaller than a quarter of height and width
  config.structure_encoder.tanh = False  # squashes the structure code to -1..1

  config.decoder = ConfigDict()
  config.decoder.num_res_blocks = 4  # AdaIN residual blocks, one run of the appearance code each
  config.decoder.mlp_width = 512  # hidden units of the MLPs that make the AdaIN parameters
  config.decoder.mlp_norm = 'none'  # none or instance: over the hidden units of one example
  # Layers of the residual blocks: basic (AdaIN of the convolution), or AdaIN as an adapter whose output is added to the
  # convolution before an instance norm: series (of the convolution) or parallel (of the layer's input).
  config.decoder.block = 'basic'
  config.decoder.non_local = 0  # non-local blocks: 1 after the residual blocks

  config.discriminator = ConfigDict()
  # lsgan, nsgan (cross-entropy) or wgan (one critic of whole images of at least 64x64; of the other fields it reads
  # width, activation, padding and r1_weight).
  config.discriminator.gan_type = 'lsgan'
  config.discriminator.width = 32  # channels of the first layers; twice as many after the last stride
  config.discriminator.num_scales = 3  # image sizes judged: full, half, quarter
  config.discriminator.num_res_blocks = 4  # residual blocks per scale
  config.discriminator.norm = 'none'  # none, instance, layer or batch (always the statistics of the batch)
  config.discriminator.activation = 'leaky_relu'  # as generator.activation
  config.discriminator.padding = 'reflect'  # reflect or zero
  config.discriminator.non_local = 0  # non-local blocks: 1 after the residual blocks, 2 before them as well
  config.discriminator.r1_weight = 0.01  # LAMBDA: weight of the squared gradient norm on real images

  config.reid = ConfigDict()
  # AB (primary and fine-grained head, code detached), normal (primary head, code trained by the generator's losses; the
  # release's has last_stride 2), PCB (a head per part, code likewise; the release's has pool avg and head_width 256).
  config.reid.style = 'AB'
  # The code of style AB is a constant to the generator's losses; False is the paper's reading: they train the encoder.
  config.reid.detach_code = True
  config.reid.normalize_code = False  # norm_id: the code is divided by its length; style normal only
  config.reid.stage_sizes = (3, 4, 6, 3)  # bottleneck blocks per stage: ResNet-50
  config.reid.pretrained = ''  # torchvision's ResNet (.pth or .safetensors) to start from; '': scratch; or 'teacher'
  config.reid.width = 64  # channels of the stem; the last stage has 32 times as many
  config.reid.last_stride = 1  # stride of the last stage (ID_stride)
  config.reid.pool = 'max'  # max or avg: pooling of the stripes and of the head's input
  config.reid.num_parts = 4  # horizontal stripes in the appearance code
  config.reid.head_width = 512  # units of each head's bottleneck: half the embedding
  config.reid.primary_dropout = 0.5  # before the primary classifiers (the release's PCB has 1, so it learns nothing)
  config.reid.fine_dropout = 0.75  # before the fine-grained classifier; style AB
  config.reid.input_scale = 0  # enlargement of the re-id input; 0 is the release's rule: 2 up to height 128, else 1
  config.reid.batch_norm_group = 8  # images that share BatchNorm statistics within a call; 0: the whole batch

  config.optimizer = ConfigDict()
  config.optimizer.generator_learning_rate = 1e-4  # Adam, structure encoder and decoder
  config.optimizer.discriminator_learning_rate = 1e-4  # Adam
  config.optimizer.reid_learning_rate = 0.002  # SGD with Nesterov momentum, backbone (lr2)
  config.optimizer.head_multiplier = 10.0  # the heads' rate over the backbone's
  config.optimizer.reid_momentum = 0.9
  config.optimizer.weight_decay = 5e-4  # added to every gradient (coupled), all parameters
  config.optimizer.decay_steps = 60_000  # rates drop at this step, at 1.5 and at 1.75 times it
  config.optimizer.gan_decay = 0.1  # gamma: factor of both Adam rates at each drop
  config.optimizer.reid_decay = 0.1  # gamma2: factor of the SGD rates at each drop

  config.weights = ConfigDict()  # constant loss weights, names as in the objectives
  config.weights.adversarial = 1.0
  config.weights.self_reconstruction = 5.0
  config.weights.positive_reconstruction = 5.0
  config.weights.cross_identity = 0.5
  config.weights.identity = 1.0
  config.weights.positive_identity = 1.0

  # Ramped weights: from `initial`, by `per_step` in every iteration after `start_step`, up to `maximum`.
  config.ramps = ConfigDict()
  for name, maximum in (('structure_code', 1.0), ('appearance_code', 1.0), ('cycle', 2.0), ('teaching', 2.0)):
    ramp = config.ramps[name] = ConfigDict()
    ramp.initial = 0.0
    ramp.start_step = 30_000
    ramp.per_step = 0.0005
    ramp.maximum = maximum

  config.structure_encoder_update_prob = 0.5  # chance that a step trains the encoder on generated pictures

  config.teaching = ConfigDict()
  config.teaching.primary = 1.0  # T_w: weight of KL(teacher, student) within the teaching weight
  config.teaching.fine_grained = 0.2  # B_w: of naming the structure donor, or the person of a real picture; style AB
  # Times so much, and times weights.identity, on real pictures; the release has 1. Above 1, real pictures, where
  # clothes tell who it is, count for more than cross pictures, where they mislead.
  config.teaching.fine_on_real = 1.0
  # What the primary head learns of cross pictures: soft (the teacher's probabilities), argmax (the likeliest alone),
  # appearance (the appearance donor alone), uniform, donors (soft, all but the two donors removed).
  config.teaching.label_style = 'soft'
  # generated, or truth: the rendered truth of those pictures, which is what a perfect generator would give (built-in
  # pedestrians and joint=False only).
  config.teaching.pictures = 'generated'
  config.teaching.teacher_norm = 'batch'  # batch (train_bn: statistics of the batch) or running
  config.teaching.teacher_dropout = False  # the release leaves it on by accident after its first picture dump

  config.teacher = ConfigDict()  # the plain re-id CNN trained beforehand on the same identities
  # Folder of a trained teacher, or several with commas between, whose soft labels are averaged (evaluation shows the
  # first); '' is <workdir>/teacher, trained first when absent.
  config.teacher.checkpoint = ''
  config.teacher.pretrained = ''  # as reid.pretrained
  config.teacher.stage_sizes = (3, 4, 6, 3)
  config.teacher.width = 64
  config.teacher.last_stride = 2
  config.teacher.pool = 'avg'  # avg or max
  config.teacher.head_width = 512
  config.teacher.dropout = 0.5
  config.teacher.batch_size = 32
  config.teacher.num_epochs = 60  # passes over the training images
  config.teacher.warmup_epochs = 5  # the rate grows linearly from a tenth
  config.teacher.decay_epoch = 40  # the rate drops to a tenth here
  config.teacher.learning_rate = 0.05  # SGD with Nesterov momentum, head; the backbone gets a tenth
  config.teacher.backbone_multiplier = 0.1
  config.teacher.random_erasing_prob = 0.0

  config.log = ConfigDict()
  config.log.progress_every_steps = 10  # progress line and metrics
  config.log.pictures_every_steps = 5_000  # picture grid
  config.log.checkpoint_every_steps = 10_000
  config.log.keep_checkpoints = 3

  config.evaluation = ConfigDict()
  config.evaluation.batch_size = 64  # images embedded at a time
  # release (trapezoidal precision, shares of all queries) or standard (rectangular precision, of queries with a match,
  # as in fast-reid and torchreid).
  config.evaluation.protocol = 'release'
  config.evaluation.alpha = 0.5  # weight of the query's fine-grained half in `both`
  config.evaluation.alpha_steps = 0  # so many weights from 0 to 1 are compared in a table and a plot; 0 leaves it out
  config.evaluation.verification = False  # TPR at FPR 1e-4, 1e-3 and 1e-2 over all pairs, and ROC curves
  config.evaluation.rerank = False  # k-reciprocal re-ranking as well
  config.evaluation.reranking = ConfigDict()
  config.evaluation.reranking.k1 = 20  # neighbours that may be reciprocal
  config.evaluation.reranking.k2 = 6  # neighbours whose weights are averaged
  config.evaluation.reranking.weight = 0.3  # share of the embeddings' own distance
  config.evaluation.num_swaps = 8  # people on each side of the swap sheet
  config.evaluation.num_ranked_queries = 8  # queries on the ranked-list sheet
  config.evaluation.num_truth_pairs = 512  # synthetic data: pictures of each kind compared with the truth

  config.generation = ConfigDict()  # what --mode=generate makes
  # sheets (every person of the query split on evaluation.num_swaps structures, and sheets to look at), photos (each
  # photo of a split on random structures of other people) or identities (each person of a split, in random photos,
  # likewise). Only sheets reads none of the fields below.
  config.generation.plan = 'sheets'
  config.generation.appearance_split = 'train'  # train, query, gallery or multi_query: who gives the clothes
  config.generation.structure_split = 'train'  # likewise: who gives pose, place and background
  config.generation.per_appearance = 1  # pictures for each photo or person
  config.generation.num_pictures = 0  # or so many in all, going round as often as it takes; 0: per_appearance each
  config.generation.format = 'jpeg'  # jpeg or png
  config.generation.jpeg_quality = 95  # 1 to 100
  config.generation.seed = 0  # picture i is a function of this seed and i
  # Without ml_collections' own type checks, which stop at the first mistake: `validate` finds them all.
  return ConfigDict(config.to_dict(), type_safe=False)


def validate(config: ConfigDict) -> None:
  """Checks types, ranges and combinations; looks at no file.

  Args:
    config: of the form of `default_config()`.

  Raises:
    ConfigError: names every unknown or missing field, wrong type, value out of range and impossible combination. A
      combination is not judged when one of its fields is wrong by itself.
  """
  problems = config_rules.problems(config, default_config())
  if problems:
    raise ConfigError(problems)
