"""No Selection: the routers as Specialization left them."""

from s3ray.stages.variants.variant import Variant

VARIANT = Variant(name="none", version=1, title="without Selection", color="#9a9a9a", order=0)
