package clipstep.demo

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.hardware.camera2.impl.CameraCaptureSessionImpl
import android.hardware.camera2.impl.CameraDeviceImpl
import android.hardware.camera2.impl.CameraMetadataNative
import android.hardware.camera2.params.OutputConfiguration
import android.hardware.camera2.params.SessionConfiguration
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.util.Range
import android.util.Size
import android.util.Xml
import android.view.Surface
import android.view.SurfaceHolder
import android.view.SurfaceView
import android.view.View
import clipstep.android.WaitingRoom
import clipstep.android.chooseRate
import clipstep.android.chooseSize
import clipstep.android.uprightRotation
import clipstep.runtime.YuvImage
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadow.api.Shadow
import org.robolectric.shadows.ShadowCameraCharacteristics
import org.robolectric.shadows.ShadowCameraManager
import org.robolectric.shadows.StreamConfigurationMapBuilder

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class CameraSourceTest {
    private val application = RuntimeEnvironment.getApplication()

    private fun facts(facing: Int, sensor: Int, vararg sizes: Size): CameraCharacteristics {
        val facts = ShadowCameraCharacteristics.newCameraCharacteristics()
        val map = sizes.fold(StreamConfigurationMapBuilder.newBuilder()) { builder, size -> builder.addOutputSize(ImageFormat.YUV_420_888, size) }.build()
        shadowOf(facts).set(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP, map)
        shadowOf(facts).set(CameraCharacteristics.SENSOR_ORIENTATION, sensor)
        shadowOf(facts).set(CameraCharacteristics.LENS_FACING, facing)
        return facts
    }

    @Test
    fun `the size closest to 640 by 480 that is large enough is taken`() {
        val back = facts(CameraCharacteristics.LENS_FACING_BACK, 90, Size(4000, 3000), Size(640, 480), Size(320, 240), Size(1280, 720))
        assertEquals(Size(640, 480), chooseSize(back, 112))
        assertEquals(Size(1280, 720), chooseSize(back, 512))
        assertNull(chooseSize(back, 4096))
    }

    @Test
    fun `the rate closest to the network's is taken`() {
        val back = facts(CameraCharacteristics.LENS_FACING_BACK, 90)
        shadowOf(back).set(CameraCharacteristics.CONTROL_AE_AVAILABLE_TARGET_FPS_RANGES, arrayOf(Range(15, 30), Range(30, 30), Range(60, 60)))
        assertEquals(Range(30, 30), chooseRate(back, 29.97))
    }

    @Test
    fun `pictures are turned upright for either camera and every display`() {
        val back = facts(CameraCharacteristics.LENS_FACING_BACK, 90)
        val front = facts(CameraCharacteristics.LENS_FACING_FRONT, 270)
        assertEquals(listOf(90, 0, 270, 180), listOf(0, 90, 180, 270).map { uprightRotation(back, it) })
        assertEquals(listOf(270, 0, 90, 180), listOf(0, 90, 180, 270).map { uprightRotation(front, it) })
    }

    @Test
    @Config(shadows = [FailingCameraManager::class, CountingDevice::class])
    fun `a camera that fails before it opens is closed`() {
        val manager = application.getSystemService(CameraManager::class.java)
        shadowOf(manager).addCamera("0", facts(CameraCharacteristics.LENS_FACING_BACK, 90, Size(640, 480)))
        val thread = HandlerThread("worker").apply { start() }
        CountingDevice.closed = 0
        CameraSource(application, 0, 30.0, 112) { _, _, _ -> }.start(Handler(thread.looper), sink)
        await("a sentence") { said.isNotEmpty() }
        assertEquals("The camera stopped: error 4. Touch Camera to start it again.", said)
        assertEquals(1, CountingDevice.closed)
        thread.quit()
    }

    @Test
    @Config(shadows = [LateCameraManager::class, CountingDevice::class])
    fun `a camera that was stopped before it opened, or failed, is closed without a word`() {
        val manager = application.getSystemService(CameraManager::class.java)
        shadowOf(manager).addCamera("0", facts(CameraCharacteristics.LENS_FACING_BACK, 90, Size(640, 480)))
        val thread = HandlerThread("worker").apply { start() }
        val answers = listOf<CameraDevice.StateCallback.(CameraDevice) -> Unit>({ onOpened(it) }, { onDisconnected(it) }, { onError(it, 4) })
        for (answer in answers) {
            CountingDevice.closed = 0
            val source = CameraSource(application, 0, 30.0, 112) { _, _, _ -> error("it was stopped") }
            LateCameraManager.stop = source::stop
            LateCameraManager.answer = answer
            source.start(Handler(thread.looper), sink)
            await("a device that is closed") { CountingDevice.closed > 0 }
        }
        thread.quitSafely()
        thread.join()
        assertEquals(1 to "", CountingDevice.closed to said)
    }

    /** What a camera that opens is asked for: where its pictures go, mirrored or not, and which of these get every picture. */
    private fun opened(facing: Int): Triple<Size?, List<Pair<Surface, Int>>, Collection<Surface>> {
        val manager = application.getSystemService(CameraManager::class.java)
        shadowOf(manager).addCamera("0", facts(facing, 90, Size(640, 480)))
        RecordingDevice.request = null
        val thread = HandlerThread("worker").apply { start() }
        var size: Size? = null
        val source = CameraSource(application, 0, 30.0, 112) { wanted, rotation, ready ->
            size = wanted
            assertEquals(90, rotation)
            ready(shown)
        }
        source.start(Handler(thread.looper), sink)
        await("a session; $said") { RecordingDevice.request != null }
        source.stop()
        thread.quitSafely()
        return Triple(size, RecordingDevice.outputs.map { requireNotNull(it.surface) to it.mirrorMode }, RecordingDevice.request!!.build().targets)
    }

    private val shown = Surface(SurfaceTexture(0))

    @Test
    @Config(shadows = [OpeningCameraManager::class, RecordingDevice::class])
    fun `a camera shows its pictures by itself beside the frames, mirrored if it is the front one`() {
        val (size, outputs, targets) = opened(CameraCharacteristics.LENS_FACING_FRONT)
        assertEquals(Size(640, 480), size)
        assertEquals(listOf(shown to OutputConfiguration.MIRROR_MODE_H), outputs.drop(1))
        assertEquals(OutputConfiguration.MIRROR_MODE_AUTO, outputs[0].second) // The network's frames are not mirrored.
        assertEquals(outputs.map { it.first }.toSet(), targets.toSet())
    }

    @Test
    @Config(shadows = [OpeningCameraManager::class, RecordingDevice::class])
    fun `the back camera's pictures are not mirrored`() =
        assertEquals(listOf(OutputConfiguration.MIRROR_MODE_AUTO, OutputConfiguration.MIRROR_MODE_AUTO), opened(CameraCharacteristics.LENS_FACING_BACK).second.map { it.second })

    @Test
    fun `the preview has the frames' shape, and what the network does not see is darker`() {
        assertEquals(300 to 400, largest(300, 500, Size(480, 640)))
        assertEquals(640 to 480, largest(900, 480, Size(640, 480)))
        val view = CropView(application).apply { layout(0, 0, 64, 48) }
        val bitmap = Bitmap.createBitmap(64, 48, Bitmap.Config.ARGB_8888).apply { eraseColor(Color.WHITE) }
        view.draw(Canvas(bitmap))
        val levels = (0 until 64 step 4).map { Color.red(bitmap.getPixel(it, 24)) }
        assertEquals(List(2) { 102 } + List(12) { 255 } + List(2) { 102 }, levels) // 255 times 1 - 0x99 / 255; the square is 48 pixels from the 8th on.
    }

    @Test
    fun `a camera is given the preview's surface once that has the size of its pictures`() {
        val view = CameraView(application, Xml.asAttributeSet(application.resources.getLayout(R.layout.row)))
        val given = mutableListOf<Surface>()
        view.prepare(Size(640, 480), 90) { given += it }
        shadowOf(Looper.getMainLooper()).idle()
        view.measure(View.MeasureSpec.makeMeasureSpec(300, View.MeasureSpec.EXACTLY), View.MeasureSpec.makeMeasureSpec(500, View.MeasureSpec.EXACTLY))
        assertEquals(300 to 400, view.measuredWidth to view.measuredHeight) // Upright.
        val holder = java.lang.reflect.Proxy.newProxyInstance(javaClass.classLoader, arrayOf(SurfaceHolder::class.java)) { _, _, _ -> shown } as SurfaceHolder
        val callbacks = shadowOf(view.getChildAt(0) as SurfaceView).fakeSurfaceHolder.callbacks
        for (callback in callbacks) callback.surfaceChanged(holder, 0, 300, 400) // Before it has the size.
        assertEquals(emptyList<Surface>(), given)
        repeat(2) { for (callback in callbacks) callback.surfaceChanged(holder, 0, 640, 480) }
        assertEquals(listOf(shown), given)
    }

    @Test
    fun `frames that find no room are missed, and others wait`() {
        val room = WaitingRoom(2)
        assertEquals(listOf(true, true, false, false), List(4) { room.enter() })
        room.leave()
        assertEquals(listOf(true, false), List(2) { room.enter() })
        assertEquals(3, room.missed)
    }

    @Test
    fun `a camera without a usable picture is a sentence`() {
        val manager = application.getSystemService(CameraManager::class.java)
        shadowOf(manager).addCamera("0", facts(CameraCharacteristics.LENS_FACING_BACK, 90, Size(64, 48)))
        val thread = HandlerThread("worker").apply { start() }
        CameraSource(application, 0, 30.0, 112) { _, _, _ -> }.start(Handler(thread.looper), sink)
        await("a sentence") { said.isNotEmpty() }
        assertTrue(said, "Camera 0 offers no usable picture format: YUV_420_888 of at least 112 pixels" in said)
        thread.quit()
    }

    @Volatile
    private var said = ""

    private val sink = object : FrameSink {
        override fun frame(image: YuvImage, rotation: Int, timestampNs: Long) = Unit

        override fun ended() = Unit

        override fun absent() = error("there is one")

        override fun failed(sentence: String) {
            said = sentence
        }
    }
}

/** Cameras that report an error in place of opening. */
@Implements(CameraManager::class)
class FailingCameraManager : ShadowCameraManager() {
    @Implementation
    fun openCamera(@Suppress("UNUSED_PARAMETER") id: String, callback: CameraDevice.StateCallback, handler: Handler) {
        handler.post { callback.onError(device, CameraDevice.StateCallback.ERROR_CAMERA_DEVICE) }
    }

    companion object {
        val device: CameraDeviceImpl by lazy { Shadow.newInstanceOf(CameraDeviceImpl::class.java) }
    }
}

/** Cameras that answer only after they were stopped. */
@Implements(CameraManager::class)
class LateCameraManager : ShadowCameraManager() {
    @Implementation
    fun openCamera(@Suppress("UNUSED_PARAMETER") id: String, callback: CameraDevice.StateCallback, handler: Handler) {
        stop()
        handler.post { callback.answer(Shadow.newInstanceOf(CameraDeviceImpl::class.java)) }
    }

    companion object {
        var stop: () -> Unit = {}
        var answer: CameraDevice.StateCallback.(CameraDevice) -> Unit = {}
    }
}

/** Cameras that open. */
@Implements(CameraManager::class)
class OpeningCameraManager : ShadowCameraManager() {
    @Implementation
    fun openCamera(@Suppress("UNUSED_PARAMETER") id: String, callback: CameraDevice.StateCallback, handler: Handler) {
        handler.post { callback.onOpened(Shadow.newInstanceOf(CameraDeviceImpl::class.java)) }
    }
}

/** Records what it is asked for. */
@Implements(CameraDeviceImpl::class, isInAndroidSdk = false)
class RecordingDevice {
    @Implementation
    fun close() = Unit

    @Implementation
    fun createCaptureSession(config: SessionConfiguration) {
        outputs = config.outputConfigurations
        config.executor.execute { config.stateCallback.onConfigured(Shadow.newInstanceOf(CameraCaptureSessionImpl::class.java)) }
    }

    @Implementation
    fun createCaptureRequest(@Suppress("UNUSED_PARAMETER") template: Int): CaptureRequest.Builder =
        CaptureRequest.Builder(CameraMetadataNative(), false, CameraCaptureSession.SESSION_ID_NONE, "0", null).also { request = it }

    companion object {
        @Volatile
        var outputs: List<OutputConfiguration> = emptyList()

        @Volatile
        var request: CaptureRequest.Builder? = null
    }
}

/** Counts how often a device is closed. */
@Implements(CameraDeviceImpl::class, isInAndroidSdk = false)
class CountingDevice {
    @Implementation
    fun close() {
        closed++
    }

    companion object {
        @Volatile
        var closed = 0
    }
}
