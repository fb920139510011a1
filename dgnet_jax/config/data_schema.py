"""The settings of the training data; part of `config.schema`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SyntheticDataConfig:
  """The built-in pedestrians (data.layout = 'synthetic')."""

  seed: int = 0  # all people and images are a function of this seed and the sizes below
  num_train_identities: int = 64  # identities in bounding_box_train
  num_test_identities: int = 32  # other identities, in query and bounding_box_test
  images_per_identity: int = 16  # images of each identity, spread over its cameras
  # Fewest and most of the six cameras that see an identity; never more than one per two images, never fewer than two.
  cameras_per_identity: tuple[int, int] = (4, 6)
  num_distractors: int = 32  # gallery images of people who are in no query (identity 0000)
  num_junk: int = 16  # gallery crops without a usable person (identity -1)
  image_size_hw: tuple[int, int] = (128, 64)  # height and width of the files, pixels


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The data set and how it is read."""

  # A layout of dgnet_jax/data/layouts.py: market1501, dukemtmc, msmt17, cuhk03, veri776, tfds, synthetic (rendered on
  # first use), release (the release's folders), folders (one folder per identity) or csv (a table).
  layout: str = 'market1501'
  root: str = ''  # folder of the data set; layout csv: the file; layout synthetic: '' means <workdir>/synthetic_data
  boxes: str = 'detected'  # bounding boxes: detected or labeled; layout cuhk03 only
  train_with_val: bool = True  # also train on the validation split; layouts msmt17 and release only
  # Training identities that are held out for validation: not trained on, and ranked instead (evaluation.every_steps,
  # evaluation.split). Which ones depends on their names alone; 0: none.
  val_identities: int = 0
  # Regular expression with a group `camera`, searched in the path within an identity's folder: cam(?P<camera>\d+). With
  # '' cameras are unknown, and every gallery image of a query's identity is a match. Layout folders only.
  camera_pattern: str = ''
  # Regular expression with a group `identity`, searched in the path within a split's folder: ^(?P<identity>[^_]+)_.
  # Then `camera_pattern` is searched there, too. With '' each identity has its own folder. Layout folders only.
  identity_pattern: str = ''
  # The positive of a training image: any other image of the identity (the release's), or one from another camera if
  # there is one (other_camera).
  positives: str = 'any'
  # Images of each identity in a batch, in each of the two streams. 0: shuffled images, as in the release. From 2: a
  # batch has batch_size / images_per_identity identities. Each comes once per round through all of them, with random
  # images, which are repeated if it has too few. Positives are drawn as with 0.
  images_per_identity: int = 0
  # tfdata (decode while training), threads (the same batches without TensorFlow), memory (decode once, keep all) or
  # device (as memory, with the images in the memory of every accelerator).
  loader: str = 'tfdata'
  cache_mib: int = 2048  # loader threads: MiB of encoded files to keep in memory
  image_size_hw: tuple[int, int] = (256, 128)  # height and width of training images, pixels
  prefetch_batches: int = 4  # batches decoded in advance; loaders tfdata and threads
  decode_threads: int = 8  # images decoded in parallel
  # To resume a run, or to use a teacher, although identities, files or labels of the training images have changed: the
  # value that the error names.
  accept_changes: str = ''
  synthetic: SyntheticDataConfig = SyntheticDataConfig()


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
  """Random augmentation of training images."""

  flip_prob: float = 0.5  # probability of a horizontal flip, independent for image and positive
  crop_padding: int = 10  # pixels of edge replication on each side before the random crop
  random_erasing_prob: float = 0.5  # probability of random erasing in the re-id network's copy (release: erasing_p)
