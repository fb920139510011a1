"""Which values a field of a configuration may have by itself."""

from dgnet_jax.config.backbones import BACKBONES, NECKS
from dgnet_jax.data.layouts import BOXES, LAYOUTS, SPLITS

ACTIVATIONS = ('leaky_relu', 'relu', 'prelu', 'selu', 'tanh')
CHOICES: dict[str, tuple[str | int, ...]] = {
  'compute_dtype': ('float32', 'bfloat16'),
  'data.layout': tuple(LAYOUTS),
  'data.boxes': BOXES,
  'data.positives': ('any', 'other_camera'),
  'data.loader': ('tfdata', 'threads', 'memory', 'device'),
  'generator.design': ('adain', 'correspondence'),
  'structure_encoder.input': ('gray', 'edge'),
  'generator.activation': ACTIVATIONS,
  'generator.padding': ('reflect', 'zero'),
  'decoder.mlp_norm': ('none', 'instance'),
  'decoder.block': ('basic', 'series', 'parallel'),
  'decoder.non_local': (0, 1),
  'discriminator.gan_type': ('lsgan', 'nsgan', 'wgan'),
  'discriminator.norm': ('none', 'instance', 'layer', 'batch'),
  'discriminator.activation': ACTIVATIONS,
  'discriminator.padding': ('reflect', 'zero'),
  'discriminator.non_local': (0, 1, 2),
  'optimizer.schedule': ('multistep', 'step', 'constant'),
  'optimizer.gan_schedule': ('as_reid', 'cosine'),
  'optimizer.reid_schedule': ('as_schedule', 'cosine'),
  'reid.style': ('AB', 'normal', 'PCB'),
  'reid.backbone': BACKBONES,
  'reid.last_stride': (1, 2),
  'reid.pool': ('max', 'avg', 'gem'),
  'reid.neck': NECKS,
  'reid.input_scale': (0, 1, 2),
  'evaluation.split': ('test', 'validation'),
  'evaluation.protocol': ('release', 'standard'),
  'teaching.label_style': ('soft', 'argmax', 'appearance', 'uniform', 'donors'),
  'teaching.images': ('generated', 'ground_truth'),
  'teaching.teacher_norm': ('batch', 'running'),
  'generation.plan': ('sheets', 'images', 'identities'),
  'generation.appearance_split': SPLITS,
  'generation.structure_split': SPLITS,
  'generation.format': ('jpeg', 'png'),
  'teacher.backbone': BACKBONES,
  'teacher.last_stride': (1, 2),
  'teacher.pool': ('avg', 'max', 'gem'),
  'teacher.neck': NECKS,
  'teacher.schedule': ('step', 'cosine'),
}
# Values that the release names, and why they are not offered.
REFUSED = {
  ('decoder.block', 'slim'): 'the release crashes on it, with AdaIN parameters for twice the channels',
  ('decoder.mlp_norm', 'batch'): 'the release crashes on it',
  ('decoder.mlp_norm', 'layer'): 'the release crashes on it',
  ('discriminator.norm', 'spectral'): 'the release crashes on it, because it does not define it',
}
# All numbers must be at least 0; these must be above 0.
POSITIVE = {
  *('num_steps', 'micro_batches', 'data.image_size_hw', 'data.prefetch_batches', 'data.decode_threads'),
  *('model_devices', 'data.synthetic.image_size_hw'),
  *('structure_encoder.width', 'structure_encoder.dilations', 'decoder.num_res_blocks', 'decoder.mlp_width'),
  *('correspondence.shape_width', 'correspondence.descriptor_size', 'correspondence.relighting_width'),
  *('correspondence.num_res_blocks', 'correspondence.style_width'),
  *('discriminator.width', 'discriminator.num_scales'),
  *('reid.stage_sizes', 'reid.width', 'reid.num_parts', 'reid.head_width'),
  *('reid.circle_scale', 'teacher.circle_scale'),
  *('optimizer.generator_learning_rate', 'optimizer.discriminator_learning_rate', 'optimizer.reid_learning_rate'),
  *('optimizer.decay_steps', 'optimizer.gan_decay', 'optimizer.reid_decay'),
  *('teacher.stage_sizes', 'teacher.width', 'teacher.head_width', 'teacher.num_epochs', 'teacher.learning_rate'),
  *('log.progress_every_steps', 'log.images_every_steps', 'log.checkpoint_every_steps', 'log.keep_checkpoints'),
  *('generation.per_appearance', 'generation.jpeg_quality'),
  *('evaluation.reranking.k1', 'evaluation.reranking.k2'),
  *('evaluation.batch_size', 'evaluation.num_swaps', 'evaluation.num_ranked_queries'),
}
# BatchNorm's variance needs two examples, identification and cross images two identities, a positive two images, and
# the covariance of generated images two of them.
AT_LEAST_TWO = {
  *('batch_size', 'teacher.batch_size', 'evaluation.num_ground_truth_pairs'),
  *('data.synthetic.num_train_identities', 'data.synthetic.num_test_identities', 'data.synthetic.images_per_identity'),
}
# These and all fields whose name ends in `_prob` must be in [0, 1].
FRACTIONS = {'evaluation.reranking.weight'}
AT_MOST = {'generation.jpeg_quality': 100, 'evaluation.ranked_table': 10_000}
