@file:JvmName("Cameras")

package clipstep.android

import android.graphics.ImageFormat
import android.hardware.camera2.CameraCharacteristics
import android.util.Range
import android.util.Size
import kotlin.math.abs

private const val ENOUGH_PIXELS = 640 * 480

/**
 * Returns the size for a camera's frames: of those with a short side of at least [side] pixels, the network's, the one closest to 640x480, because more pixels
 * only take longer to convert. Null if the camera has none in YUV_420_888.
 */
public fun chooseSize(facts: CameraCharacteristics, side: Int): Size? {
    val sizes = facts.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)?.getOutputSizes(ImageFormat.YUV_420_888).orEmpty()
    return sizes.filter { minOf(it.width, it.height) >= side }.minByOrNull { abs(it.width * it.height - ENOUGH_PIXELS) }
}

/** Returns the range of a camera's frame rates that is closest to a constant [fps], the network's, or null if it names none. */
public fun chooseRate(facts: CameraCharacteristics, fps: Double): Range<Int>? =
    facts.get(CameraCharacteristics.CONTROL_AE_AVAILABLE_TARGET_FPS_RANGES)?.minByOrNull { abs(it.lower - fps) + abs(it.upper - fps) }

/**
 * Returns by how many degrees a camera's frames are to be rotated clockwise so that they are upright on a display that is rotated by [displayDegrees]
 * counter-clockwise: 0, 90, 180 or 270.
 */
public fun uprightRotation(facts: CameraCharacteristics, displayDegrees: Int): Int {
    val sensor = facts.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0
    val isFront = facts.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT
    return Math.floorMod(if (isFront) sensor + displayDegrees else sensor - displayDegrees, 360)
}
