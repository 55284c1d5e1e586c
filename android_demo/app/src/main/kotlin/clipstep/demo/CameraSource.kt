package clipstep.demo

import android.annotation.SuppressLint
import android.content.Context
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.hardware.camera2.params.OutputConfiguration
import android.hardware.camera2.params.SessionConfiguration
import android.os.Build
import android.os.Handler
import android.util.Size
import android.view.Surface
import android.view.SurfaceHolder
import clipstep.android.ImageReaderSource
import clipstep.android.LiveFrame
import clipstep.android.WaitingRoom
import clipstep.android.chooseRate
import clipstep.android.chooseSize
import clipstep.android.uprightRotation
import java.io.Closeable
import kotlin.math.abs

/**
 * Frames of a camera through camera2: small YUV_420_888 images, at the network's frame rate if the camera supports it. The camera shows its pictures
 * on [target] by itself, so that they move on while a step runs. Frames that the worker has no time for are missed; a camera that slows down in the dark
 * loses none.
 */
class CameraSource(
    private val context: Context, private val turn: Int, private val fps: Double, private val size: Int, private val target: PreviewTarget,
) : FrameSource {
    override val isLive = true
    override val showsItself = true
    private val manager = context.service<CameraManager>()
    private val room = WaitingRoom()
    private var worker: Handler? = null
    private var frames: Closeable? = null
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
            val source = ImageReaderSource(chosen, { uprightRotation(facts, displayDegrees) }) { surface, _ ->
                manager.openCamera(id, Opened(surface, choosePreview(facts, chosen), facts, worker, sink), worker)
                Closeable(::closeDevice)
            }
            frames = source.open(Arrivals(worker, sink))
        } catch (error: CameraAccessException) {
            fail(sink, error)
        } catch (error: SecurityException) {
            fail(sink, error)
        } catch (error: IllegalArgumentException) { // The camera was unplugged since it was listed.
            fail(sink, error)
        }
    }

    private inner class Arrivals(private val worker: Handler, private val sink: FrameSink) : clipstep.android.FrameSink {
        override fun offer(frame: LiveFrame) {
            if (!room.enter()) return frame.close()
            val isQueued = worker.post {
                room.leave()
                frame.use { if (!stopped) sink.frame(it.image, it.rotation, it.timestampNs) }
            }
            if (!isQueued) frame.close()
        }

        override fun end() = Unit // A camera has none.

        override fun fail(error: Exception) {
            worker.post { fail(sink, error) }
        }
    }

    private fun fail(sink: FrameSink, error: Exception) {
        val wasStopped = stopped
        close()
        if (!wasStopped) sink.failed(context.getString(R.string.camera_failed, error.message ?: error.javaClass.simpleName))
    }

    private fun close() {
        stopped = true
        frames?.close()
        frames = null
        closeDevice() // It may have opened since.
    }

    private fun closeDevice() {
        device?.close()
        device = null
    }

    private inner class Opened(
        private val frames: Surface,
        private val preview: Size,
        private val facts: CameraCharacteristics,
        private val worker: Handler,
        private val sink: FrameSink,
    ) : CameraDevice.StateCallback() {
        override fun onOpened(camera: CameraDevice) {
            device = camera
            if (stopped) return close()
            target.prepare(preview, uprightRotation(facts, displayDegrees)) { shown -> worker.post { if (!stopped) guarded { begin(camera, shown) } } }
        }

        private fun begin(camera: CameraDevice, shown: Surface) = createSession(camera, frames, shown, isFront(facts), worker, Configured(camera, shown))

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
                request.addTarget(frames)
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

private fun isFront(facts: CameraCharacteristics) = facts.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT
