package clipstep.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.ImageFormat
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.hardware.camera2.params.OutputConfiguration
import android.hardware.camera2.params.SessionConfiguration
import android.media.Image
import android.media.ImageReader
import android.os.Build
import android.os.Handler
import android.os.HandlerThread
import android.util.Range
import android.util.Size
import android.view.Surface
import android.view.SurfaceHolder
import clipstep.runtime.ClipstepException
import clipstep.runtime.YuvColor
import kotlin.math.abs

internal const val WAITING_IMAGES = 6 // Enough for the images of 0.2 s, while a step runs.
private const val OTHER_IMAGES = 2 // One that the worker uses, and one that arrives.

/**
 * Frames of a camera through camera2: small YUV_420_888 images, at the network's frame rate if the camera supports it. The camera shows its pictures
 * on [target] by itself, so that they move on while a step runs.
 *
 * Images are received by a thread of their own, so that those are known which the worker has no time for: a camera that slows down in the dark
 * loses none.
 */
class CameraSource(
    private val context: Context, private val turn: Int, private val fps: Double, private val size: Int, private val target: PreviewTarget,
) : FrameSource {
    override val isLive = true
    override val showsItself = true
    private val manager = context.service<CameraManager>()
    private val arrivals = HandlerThread("camera")
    private val room = WaitingRoom(WAITING_IMAGES)
    private var worker: Handler? = null
    private var reader: ImageReader? = null
    private var device: CameraDevice? = null

    @Volatile
    private var stopped = false

    @Volatile
    private var displayDegrees = 0
    override val missed: Long get() = room.missed

    override fun turn(degrees: Int) {
        displayDegrees = degrees
    }

    override fun start(worker: Handler, sink: FrameSink) {
        this.worker = worker
        worker.post { open(worker, sink) }
    }

    override fun stop() {
        stopped = true
        worker?.post { close() }
    }

    @SuppressLint("MissingPermission") // Permission was requested before; if it was withdrawn since, this throws a SecurityException.
    private fun open(worker: Handler, sink: FrameSink) {
        if (stopped) return
        try {
            val ids = manager.cameraIdList
            if (ids.isEmpty()) return sink.absent()
            val id = ids[Math.floorMod(turn, ids.size)]
            val facts = manager.getCameraCharacteristics(id)
            val chosen = chooseSize(facts, size) ?: return sink.failed(context.getString(R.string.no_yuv, id, size))
            val reader = ImageReader.newInstance(chosen.width, chosen.height, ImageFormat.YUV_420_888, WAITING_IMAGES + OTHER_IMAGES)
            this.reader = reader
            arrivals.start()
            reader.setOnImageAvailableListener({ receive(it, facts, worker, sink) }, Handler(arrivals.looper))
            manager.openCamera(id, Opened(reader, choosePreview(facts, chosen), facts, worker, sink), worker)
        } catch (error: CameraAccessException) {
            fail(sink, error)
        } catch (error: SecurityException) {
            fail(sink, error)
        } catch (error: IllegalArgumentException) { // The camera was unplugged since it was listed.
            fail(sink, error)
        }
    }

    /** Called by the thread [arrivals]. */
    private fun receive(reader: ImageReader, facts: CameraCharacteristics, worker: Handler, sink: FrameSink) {
        val image = synchronized(arrivals) { if (stopped) null else reader.acquireNextImage() } ?: return
        if (!room.enter()) return image.close()
        val isQueued = worker.post {
            room.leave()
            image.use { if (!stopped) give(it, facts, sink) }
        }
        if (!isQueued) image.close()
    }

    private fun give(image: Image, facts: CameraCharacteristics, sink: FrameSink) {
        val frame = try {
            yuv(image, YuvColor.BT601_FULL)
        } catch (error: ClipstepException) { // Its planes are shorter than its size says.
            return fail(sink, error)
        }
        sink.frame(frame, rotation(facts, displayDegrees), image.timestamp)
    }

    private fun fail(sink: FrameSink, error: Exception) {
        val wasStopped = stopped
        close()
        if (!wasStopped) sink.failed(context.getString(R.string.camera_failed, error.message ?: error.javaClass.simpleName))
    }

    private fun close() {
        synchronized(arrivals) {
            stopped = true
            device?.close()
            reader?.close()
        }
        device = null
        reader = null
        arrivals.quitSafely()
    }

    private inner class Opened(
        private val reader: ImageReader,
        private val preview: Size,
        private val facts: CameraCharacteristics,
        private val worker: Handler,
        private val sink: FrameSink,
    ) : CameraDevice.StateCallback() {
        override fun onOpened(camera: CameraDevice) {
            device = camera
            if (stopped) return close()
            target.prepare(preview, rotation(facts, displayDegrees)) { shown -> worker.post { if (!stopped) guarded { begin(camera, shown) } } }
        }

        private fun begin(camera: CameraDevice, shown: Surface) = createSession(camera, reader.surface, shown, isFront(facts), worker, Configured(camera, shown))

        private fun guarded(action: () -> Unit) {
            try {
                action()
            } catch (error: CameraAccessException) {
                fail(sink, error)
            } catch (error: IllegalStateException) { // It was disconnected meanwhile.
                fail(sink, error)
            } catch (error: IllegalArgumentException) { // It refuses the size.
                fail(sink, error)
            }
        }

        override fun onDisconnected(camera: CameraDevice) = failed(camera, "another app took it")

        override fun onError(camera: CameraDevice, error: Int) = failed(camera, "error $error")

        private fun failed(camera: CameraDevice, why: String) {
            device = camera // It may not have opened yet, and is to be closed all the same.
            fail(sink, IllegalStateException(why))
        }

        private inner class Configured(private val camera: CameraDevice, private val shown: Surface) : CameraCaptureSession.StateCallback() {
            override fun onConfigured(session: CameraCaptureSession) {
                if (!stopped) guarded { session.setRepeatingRequest(request(), null, worker) }
            }

            private fun request(): CaptureRequest {
                val request = camera.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                request.addTarget(reader.surface)
                request.addTarget(shown)
                chooseRate(facts, fps)?.let { request.set(CaptureRequest.CONTROL_AE_TARGET_FPS_RANGE, it) }
                return request.build()
            }

            override fun onConfigureFailed(session: CameraCaptureSession) = fail(sink, IllegalStateException("it refused the format"))
        }
    }
}

/** A camera's frames go to [frames], and its pictures to [shown]; a [front] camera's are mirrored there, as people expect. */
private fun createSession(
    camera: CameraDevice, frames: Surface, shown: Surface, front: Boolean, worker: Handler, callback: CameraCaptureSession.StateCallback,
) {
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) {
        val preview = OutputConfiguration(shown)
        if (front && Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) preview.mirrorMode = OutputConfiguration.MIRROR_MODE_H // Before, Android's own choice.
        val outputs = listOf(OutputConfiguration(frames), preview)
        camera.createCaptureSession(SessionConfiguration(SessionConfiguration.SESSION_REGULAR, outputs, { worker.post(it) }, callback))
    } else {
        @Suppress("DEPRECATION")
        camera.createCaptureSession(listOf(frames, shown), callback, worker)
    }
}

private const val PREVIEW_PIXELS = 1280 * 960
private const val LARGEST_PREVIEW = 1920 // What every camera can show beside its frames.

/** Returns the size of the preview that is closest to [PREVIEW_PIXELS] of those with the shape of [frames], which show the same part of the scene. */
internal fun choosePreview(facts: CameraCharacteristics, frames: Size): Size {
    val sizes = facts.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)?.getOutputSizes(SurfaceHolder::class.java).orEmpty()
    val fitting = sizes.filter { it.width * frames.height == it.height * frames.width && maxOf(it.width, it.height) <= LARGEST_PREVIEW }
    return fitting.minByOrNull { abs(it.width * it.height - PREVIEW_PIXELS) } ?: frames
}

/** Returns the size closest to 640x480 whose short side is at least [size], or null if the camera has none. */
internal fun chooseSize(facts: CameraCharacteristics, size: Int): Size? {
    val sizes = facts.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP)?.getOutputSizes(ImageFormat.YUV_420_888).orEmpty()
    return sizes.filter { minOf(it.width, it.height) >= size }.minByOrNull { abs(it.width * it.height - 640 * 480) }
}

/** Returns the range of frame rates that is closest to a constant [fps]. */
internal fun chooseRate(facts: CameraCharacteristics, fps: Double): Range<Int>? =
    facts.get(CameraCharacteristics.CONTROL_AE_AVAILABLE_TARGET_FPS_RANGES)?.minByOrNull { abs(it.lower - fps) + abs(it.upper - fps) }

/** Returns by how many degrees to rotate the camera's images clockwise so that they are upright on a display rotated by [displayDegrees]. */
internal fun rotation(facts: CameraCharacteristics, displayDegrees: Int): Int {
    val sensor = facts.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: 0
    return Math.floorMod(if (isFront(facts)) sensor + displayDegrees else sensor - displayDegrees, 360)
}

private fun isFront(facts: CameraCharacteristics) = facts.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT
