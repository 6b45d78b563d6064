"""The networks and methods of docs/models.md."""

from __future__ import annotations

TORCHVISION = """resnet18 vgg16 alexnet squeezenet1_1 densenet121 googlenet inception_v3 mobilenet_v2 mobilenet_v3_large
efficientnet_b0 regnet_y_400mf convnext_tiny swin_t swin_v2_t vit_b_16 maxvit_t shufflenet_v2_x1_0 mnasnet1_0"""
TIMM = """tf_efficientnet_lite0 resnet50 densenet121 nfnet_l0 dm_nfnet_f0 regnety_008 repvgg_a0 seresnet50 convnext_tiny
convnextv2_nano vit_small_patch16_224 vit_base_patch32_clip_224 deit_tiny_distilled_patch16_224 beit_base_patch16_224
vit_small_patch14_reg4_dinov2 vit_base_patch16_siglip_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256
maxvit_tiny_tf_224 coatnet_0_rw_224 mixer_s32_224 resmlp_12_224 efficientformer_l1 efficientformerv2_s0 levit_128 mobilevit_s
vit_small_r26_s32_224 cait_xxs24_224 xcit_nano_12_p16_224 pvt_v2_b0 poolformer_s12 volo_d1_224 hrnet_w18_small
inception_next_tiny pit_s_distilled_224 tnt_s_patch16_224 crossvit_9_240 twins_svt_small convit_tiny eva02_tiny_patch14_224
mambaout_tiny fastvit_t8 hiera_tiny_224 nest_tiny edgenext_small gcvit_xxtiny davit_tiny focalnet_tiny_srf mvitv2_tiny
visformer_tiny naflexvit_base_patch16_gap tiny_vit_5m_224 repghostnet_100 ghostnet_100 sequencer2d_s gmlp_s16_224
flexivit_small"""
SMALL = "test_resnet test_byobnet test_efficientnet test_nfnet test_convnext test_mambaout test_vit test_vit2"
NAMES = (
    *(f"torchvision/{name}" for name in TORCHVISION.split()),
    *(f"timm/{name}" for name in TIMM.split()),
    *(f"timm/{name}" for name in SMALL.split()),
)
CLASSES, LARGEST = 10, 288  # number of classes; largest side of an image

# Run in one call of methods="fast"; its notes contain the reasons for skipped methods.
GRADIENT = """gradcam hirescam layercam gradcam++ xgradcam gradcamelementwise eigengradcam segeigencam shapleycam finercam
guidedgradcam fullgrad eigensmooth"""
OTHERS = """cam eigencam kpcacam fem lafam randomcam deepfeaturefactorization attentionrollout attentionrelevance legrad
gradeclip"""
JOINING = "refinecam layercamfusion"
VARIANTS = "smooth(samples=2) smoothgradcam++(samples=2) integrated(steps=2) augmented(factors=[1.0])"
# The number of forward passes depends on the settings only.
MASKS = """groupcam(groups=4) opticam(steps=2) rise(masks=8) occlusion(window=0.5,stride=0.25) cameras(sizes=2)
sess(scales=2) reciprocam vitreciprocam"""
# At least one forward pass per channel: run at the layer with the fewest channels, if that takes a few seconds.
CHANNELS = "scorecam sscam(samples=1) iscam(steps=1) ablationcam"
SECONDS = 2.0
IN_FULL = """scorecam sscam iscam ablationcam groupcam opticam rise occlusion polycam reciprocam vitreciprocam cameras sess
smooth smoothgradcam++ integrated augmented"""
SMALLER = 96  # side of the image for the reference, where the network accepts it
REFERENCE = 1e-6  # a larger relative difference from the reference is a failure
ROUNDING = 1e-10  # a map below this fraction of its largest possible value is not compared
