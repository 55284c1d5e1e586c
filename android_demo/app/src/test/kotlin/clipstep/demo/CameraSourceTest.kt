package clipstep.demo

import android.graphics.ImageFormat
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.impl.CameraDeviceImpl
import android.os.Handler
import android.os.HandlerThread
import android.util.Range
import android.util.Size
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
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadow.api.Shadow
import org.robolectric.shadows.ShadowCameraCharacteristics
import org.robolectric.shadows.ShadowCameraManager
import org.robolectric.shadows.StreamConfigurationMapBuilder

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
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
        assertEquals(listOf(90, 0, 270, 180), listOf(0, 90, 180, 270).map { rotation(back, it) })
        assertEquals(listOf(270, 0, 90, 180), listOf(0, 90, 180, 270).map { rotation(front, it) })
    }

    @Test
    @Config(shadows = [FailingCameraManager::class, CountingDevice::class])
    fun `a camera that fails before it opens is closed`() {
        val manager = application.getSystemService(CameraManager::class.java)
        shadowOf(manager).addCamera("0", facts(CameraCharacteristics.LENS_FACING_BACK, 90, Size(640, 480)))
        val thread = HandlerThread("worker").apply { start() }
        CameraSource(application, 0, 30.0, 112).start(Handler(thread.looper), sink)
        await("a sentence") { said.isNotEmpty() }
        assertEquals("The camera stopped: error 4. Touch Camera to start it again.", said)
        assertEquals(1, CountingDevice.closed)
        thread.quit()
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
        CameraSource(application, 0, 30.0, 112).start(Handler(thread.looper), sink)
        await("a sentence") { said.isNotEmpty() }
        assertTrue(said, "Camera 0 offers no usable picture format: YUV_420_888 of at least 112 pixels" in said)
        thread.quit()
    }

    @Volatile
    private var said = ""

    private val sink = object : FrameSink {
        override fun frame(image: YuvImage, rotation: Int, timestampNs: Long) = Unit

        override fun ended() = Unit

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
