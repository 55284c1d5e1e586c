package clipstep.demo

import ai.onnxruntime.OrtEnvironment
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build

/** Information about this phone and this app. */
internal class DeviceFacts(private val context: Context) {
    val device = DeviceRecord(cpuModel(), Runtime.getRuntime().availableProcessors(), "Android ${Build.VERSION.RELEASE} (SDK ${Build.VERSION.SDK_INT})", machine())

    val appVersion: String = context.packageManager.getPackageInfo(context.packageName, 0).versionName ?: "unknown"

    fun engineVersion(engine: String): String =
        if (engine == "onnxruntime") OrtEnvironment.getEnvironment().version else context.getString(R.string.executorch_version)

    fun phone(temperatureBeforeC: Double?) =
        PhoneRecord("${Build.MANUFACTURER} ${Build.MODEL}", Build.FINGERPRINT, temperatureBeforeC, temperatureC(), PhoneThermal(context).status())

    /** The temperature of the battery, the only one that apps can read on every phone. */
    fun temperatureC(): Double? {
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED)) ?: return null
        return battery.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, -1).takeIf { it >= 0 }?.let { it / 10.0 }
    }

    private fun cpuModel(): String =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}" else Build.HARDWARE

    private fun machine(): String = System.getProperty("os.arch").orEmpty()
}
