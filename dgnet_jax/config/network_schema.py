"""The settings of the networks and of the teacher; part of `config.schema`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
  """The generator: its design, and what its networks have in common."""

  # adain (the release's: sections structure_encoder and decoder) or correspondence (fetches the donor's pixels: section
  # correspondence).
  design: str = 'adain'
  activation: str = 'leaky_relu'  # leaky_relu (slope 0.2), relu, prelu, selu or tanh
  padding: str = 'reflect'  # reflect or zero
  non_local_residual: bool = False  # a non-local block at the end of every residual block


@dataclasses.dataclass(frozen=True)
class StructureEncoderConfig:
  """E_s, the structure encoder."""

  input: str = 'gray'  # gray (mean of the channels) or edge (Canny; passes no gradient to the image)
  # Standard deviation of the noise added to edges (-0.5, 0.5) in training; no golden covers it.
  edge_noise: float = 0.1
  width: int = 16  # channels of the first layer; the structure code has 8 times as many
  num_res_blocks: int = 4  # residual blocks at a quarter of the image size
  dilations: tuple[int, ...] = (3, 6, 9)  # ASPP; the largest must be below a quarter of height and width
  tanh: bool = False  # bound the structure code to (-1, 1)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """G, the decoder."""

  num_res_blocks: int = 4  # AdaIN residual blocks; each takes its own slice of the appearance code
  mlp_width: int = 512  # hidden units of the MLPs that predict the AdaIN parameters
  mlp_norm: str = 'none'  # none or instance: normalizes the hidden units of each example
  # Residual blocks: basic (AdaIN of the convolution), or AdaIN as an adapter whose output is added to the convolution
  # before an instance norm: series (applied to the convolution) or parallel (applied to the layer's input).
  block: str = 'basic'
  non_local: int = 0  # non-local blocks: 1 after the residual blocks


@dataclasses.dataclass(frozen=True)
class CorrespondenceConfig:
  """The generator of design correspondence. The release has no such generator."""

  # Attention compares cells of this many pixels; a power of 2. Places are refined from there to pixels. Keep the number
  # of cells at 512 or below: attention costs its square.
  attention_stride: int = 8
  shape_width: int = 32  # channels of the shape encoder at half the image's size; twice as many at all smaller sizes
  descriptor_size: int = 32  # channels by which cells are compared
  relighting_width: int = 16  # features by which the light of two images is compared
  refinement_width: int = 48  # channels of the network that mends the fetched pixels
  num_res_blocks: int = 3  # its AdaIN residual blocks
  style_width: int = 128  # hidden units between appearance code and AdaIN parameters


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
  """D, the discriminator."""

  # lsgan, nsgan (cross-entropy) or wgan (one critic of the full image, 64x64 or larger; of the fields below it
  # reads only width, activation, padding and r1_weight).
  gan_type: str = 'lsgan'
  width: int = 32  # channels of the first layers; doubled after the last stride
  num_scales: int = 3  # image sizes judged: full, half, quarter
  num_res_blocks: int = 4  # residual blocks per scale
  norm: str = 'none'  # none, instance, layer or batch (always with batch statistics)
  activation: str = 'leaky_relu'  # as generator.activation
  padding: str = 'reflect'  # reflect or zero
  non_local: int = 0  # non-local blocks: 1 after the residual blocks, 2 before them as well
  r1_weight: float = 0.01  # weight of the squared gradient norm on real images (release: LAMBDA)


@dataclasses.dataclass(frozen=True)
class ReidConfig:
  """E_a, the re-id backbone, which is also the appearance encoder, with its heads."""

  # AB (primary and fine-grained head, code detached), normal (primary head; the generator's losses train the code; in
  # the release with last_stride 2) or PCB (one head per part, code as in normal; in the release with pool avg and
  # head_width 256).
  style: str = 'AB'
  # Style AB: stop the generator's gradients at the appearance code; False lets them through, as the paper reads.
  detach_code: bool = True
  normalize_code: bool = False  # divide the code by its norm (release: norm_id); style normal only
  # resnet, resnet_ibn_a (instance norm in the blocks of the first three stages; Pan et al. 2018) or osnet (Zhou et al.
  # 2019; stage_sizes 2, 2, 2 and last_stride 1).
  backbone: str = 'resnet'
  stage_sizes: tuple[int, ...] = (3, 4, 6, 3)  # blocks per stage; the default is ResNet-50, 3, 4, 23, 3 ResNet-101
  # Initial weights: a file (.pth or .safetensors) of torchvision's ResNet, IBN-Net's resnet50_ibn_a or torchreid's
  # OSNet; 'teacher' (the teacher's backbone); or '' for random.
  pretrained: str = ''
  width: int = 64  # channels of the stem; ResNet-50 ends with 32 times as many, OSNet with 8 times
  last_stride: int = 1  # stride of the last stage (release: ID_stride)
  # Of the stripes and of the heads' input: max, avg, or gem (generalized mean, whose exponent is trained; Radenovic et
  # al. 2018).
  pool: str = 'max'
  num_parts: int = 4  # horizontal stripes in the appearance code
  # Of each head: release (linear bottleneck, BatchNorm, dropout, classifier) or bnneck (BatchNorm of the pooled feature
  # without bias, classifier without bias; Luo et al. 2019).
  neck: str = 'release'
  head_width: int = 512  # units of each head's bottleneck, half of the embedding; neck release only
  # Before the primary classifier, neck release only (the release's PCB has 1, so it learns nothing).
  primary_dropout: float = 0.5
  fine_dropout: float = 0.75  # before the fine-grained classifier; style AB and neck release only
  input_scale: int = 0  # upsampling of the re-id input; 0 is the release's rule: 2 up to height 128, else 1
  batch_norm_group: int = 8  # images that share BatchNorm statistics within one call; 0: the whole batch
  # Share of the target probability that is spread over all identities, in the identification of real images.
  label_smoothing: float = 0.0
  triplet_margin: float = 0.3  # of weights.triplet, in units of the embedding; 0: the soft margin
  circle_margin: float = 0.25  # of weights.circle, in units of the cosine, below 1
  circle_scale: float = 128.0  # of weights.circle


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
  """The teacher: a plain re-id network, trained first on the same identities."""

  # Folder of a trained teacher, or several separated by commas, whose soft labels are averaged (evaluation reports the
  # first). '' means <workdir>/teacher, trained first if absent.
  checkpoint: str = ''
  pretrained: str = ''  # initial weights: a file as in reid.pretrained, or '' for random
  backbone: str = 'resnet'  # as reid.backbone
  stage_sizes: tuple[int, ...] = (3, 4, 6, 3)  # blocks per stage; the default is ResNet-50
  width: int = 64  # channels of the stem
  last_stride: int = 2  # stride of the last stage (release: stride)
  pool: str = 'avg'  # as reid.pool
  neck: str = 'release'  # as reid.neck
  head_width: int = 512  # units of the head's bottleneck, the size of the embedding; neck release only
  dropout: float = 0.5  # before the classifier (release: droprate); neck release only
  batch_size: int = 32  # images per step, over all devices
  num_epochs: int = 60  # passes over the training images
  warmup_epochs: int = 5  # the learning rate grows linearly from a tenth
  decay_epoch: int = 40  # the learning rate drops to a tenth here; schedule step only
  learning_rate: float = 0.05  # SGD with Nesterov momentum; the head's
  backbone_multiplier: float = 0.1  # learning rate of the backbone relative to the head's
  random_erasing_prob: float = 0.0  # probability of random erasing
  # step (the release's: one drop, at decay_epoch) or cosine (to 0, from the end of the warm-up to num_epochs).
  schedule: str = 'step'
  # Images of each identity in a batch, as data.images_per_identity. 0: shuffled images, as in the release.
  images_per_identity: int = 0
  label_smoothing: float = 0.0  # share of the target probability that is spread over all identities
  # Weights of metric losses on the embedding, next to 1 of the identification; 0 does not compute them. They need
  # images_per_identity.
  triplet: float = 0.0  # batch-hard triplet loss
  triplet_margin: float = 0.3  # in units of the embedding; 0: the soft margin
  circle: float = 0.0  # circle loss
  circle_margin: float = 0.25  # in units of the cosine, below 1
  circle_scale: float = 128.0
