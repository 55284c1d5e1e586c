package clipstep.demo

import android.app.Activity
import android.content.Intent
import android.content.pm.PackageManager
import android.view.View
import android.view.ViewGroup
import android.widget.TextView
import clipstep.runtime.Engine
import java.io.File
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class AboutActivityTest {
    private val application = RuntimeEnvironment.getApplication() as TestApplication

    private fun start(): Activity = Robolectric.buildActivity(AboutActivity::class.java).setup().get()

    private fun Activity.rows(): List<View> = view<ViewGroup>(R.id.rows).run { List(childCount) { getChildAt(it) } }

    private fun View.text(id: Int) = view<TextView>(id).text.toString()

    /** Opens the licence of the library of that name. */
    private fun licence(name: String): Activity {
        val about = start()
        about.rows().first { it.text(R.id.name) == name }.performClick()
        return Robolectric.buildActivity(LicenceActivity::class.java, shadowOf(about).nextStartedActivity).setup().get()
    }

    @Test
    fun `the libraries are those that the app runs with`() {
        val paths = (System.getProperty("surefire.test.class.path") ?: System.getProperty("java.class.path")).split(File.pathSeparator)
        val jars = paths.map { File(it).name }
        for (library in libraries(application).drop(1).filterNot { it.name == "executorch-android" }) {
            // Maven's onnxruntime is for computers; of kotlinx's libraries it has the JARs for the JVM.
            val names = listOf(library.name, library.name.removeSuffix("-android"), "${library.name}-jvm").map { "$it-${library.version}.jar" }
            assertTrue("$names in $jars", names.any { it in jars })
        }
        assertEquals(application.getString(R.string.executorch_version), libraries(application).first { it.name == "executorch-android" }.version)
        assertEquals(application.packageManager.getPackageInfo("clipstep.demo", 0).versionName, libraries(application).first().version)
        val engines = Engine.all.map { it.dependency }
        assertEquals(engines, libraries(application).map { it.module }.filter { it in engines })
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `about says what the app is, its version, and each library with its licence`() {
        val activity = start()
        assertEquals("Version 0.1.0", activity.text(R.id.version))
        val rows = activity.rows().map { "${it.text(R.id.name)} ${it.text(R.id.facts)}" }
        assertEquals("clipstep 0.1.0, Apache-2.0", rows.first())
        assertTrue("$rows", "onnxruntime-android 1.29.0, MIT" in rows && "executorch-android 1.5.1, BSD-3-Clause" in rows)
        activity.drawTo("about-light")
    }

    @Test
    fun `no picture can leave the phone, as about says`() {
        val asked = application.packageManager.getPackageInfo("clipstep.demo", PackageManager.GET_PERMISSIONS).requestedPermissions.orEmpty().toList()
        assertTrue("$asked", asked.isNotEmpty() && "android.permission.INTERNET" !in asked)
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a licence opens with its copyright lines, and in paragraphs for a narrow screen`() {
        val activity = licence("executorch-android")
        assertEquals("executorch-android", activity.text(R.id.title))
        val lines = activity.text(R.id.text).lines()
        assertTrue(listOf("BSD License", "Copyright (c) Meta Platforms, Inc. and affiliates.", "Copyright 2023 NXP").all { it in lines })
        val clause = "* Neither the name Meta nor the names of its contributors may be used to endorse or promote products derived from this software without specific prior written permission."
        assertTrue("$lines", clause in lines)
        activity.drawTo("licence-light")
        assertTrue("Copyright (c) Microsoft Corporation" in licence("onnxruntime-android").text(R.id.text))
        assertTrue("Apache License\nVersion 2.0, January 2004" in licence("kotlin-stdlib").text(R.id.text))
    }

    @Test
    fun `no word of a licence is lost`() {
        for (library in libraries(application)) {
            val text = application.readRaw(library.text)
            assertEquals(text.split(Regex("\\s+")).filter { it.isNotEmpty() }, flowing(text).split(Regex("\\s+")))
        }
    }

    @Test
    fun `a library that is not in the app has no licence to show`() {
        assertTrue(Robolectric.buildActivity(LicenceActivity::class.java, Intent().putExtra("module", "a:b")).setup().get().isFinishing)
        assertFalse(licence("annotations").isFinishing)
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-night-xhdpi")
    fun `a phone in dark`() = start().drawTo("about-dark")

    @Test
    @Config(qualifiers = "ar-ldrtl-w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a phone read from right to left`() {
        start().drawTo("about-rtl")
        licence("kotlin-stdlib").drawTo("licence-rtl")
    }

    @Test
    @Config(qualifiers = "w320dp-h533dp-normal-notlong-port-notnight-hdpi")
    fun `a small screen at twice the font size`() {
        RuntimeEnvironment.setFontScale(2f)
        start().drawTo("about-small-font-2")
        licence("clipstep").drawTo("licence-small-font-2")
    }
}
