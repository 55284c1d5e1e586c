package clipstep.demo

import android.os.Build
import android.os.PowerManager
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadow.api.Shadow
import org.robolectric.shadows.ShadowPowerManager
import org.robolectric.util.ReflectionHelpers

/** What phones of several Android versions say of their heat, and are asked. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class, shadows = [HotPower::class])
class ThermalTest {
    private val application = RuntimeEnvironment.getApplication()
    private val power = Shadow.extract<HotPower>(application.service<PowerManager>())
    private val present = Build.VERSION.SDK_INT

    private fun version(sdk: Int) = ReflectionHelpers.setStaticField(Build.VERSION::class.java, "SDK_INT", sdk)

    @After
    fun back() = version(present)

    @Test
    fun `a phone is asked only for what its Android version knows`() {
        val thermal = PhoneThermal(application)
        val known = listOf(26, 28, 29, 30, 35).associateWith { sdk ->
            version(sdk)
            power.asked.clear()
            listOf(thermal.status(), thermal.headroom(), power.asked.toList())
        }
        val (none, status, all) = Triple(listOf(null, null, emptyList<String>()), listOf(3, null, listOf("status")), listOf(3, 0.75f, listOf("status", "headroom")))
        assertEquals(mapOf(26 to none, 28 to none, 29 to status, 30 to all, 35 to all), known)
    }

    @Test
    fun `a record says that heat is not known where it is not, and a run then has no headrooms`() {
        version(28)
        val headrooms = Headrooms(PhoneThermal(application)) { 0 }.apply { at(1.0) }
        assertEquals(listOf(null, emptyList<Headroom>(), emptyList<String>()), listOf(DeviceFacts(application).phone(null).thermalStatusAfter, headrooms.answers, power.asked))
        version(29)
        assertEquals(3, DeviceFacts(application).phone(null).thermalStatusAfter)
    }
}

/** A phone that is hot, and writes down what it is asked for. */
@Implements(PowerManager::class)
class HotPower : ShadowPowerManager() {
    val asked = mutableListOf<String>()

    @Implementation
    override fun getCurrentThermalStatus(): Int = 3.also { asked += "status" }

    @Implementation
    fun getThermalHeadroom(forecastSeconds: Int): Float = 0.75f.also { asked += "headroom" }
}
