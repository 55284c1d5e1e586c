package clipstep.demo

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.os.PowerManager

private const val CHANNEL = "long test"
private const val ID = 1
private const val CANCEL = "cancel"
private const val SPARE_MS = 60_000L

/** Keeps a [LongRun] going, with a notification, when the user leaves the app. It measures nothing: [BenchService] does. */
class KeepService : Service() {
    private val app get() = application as DemoApplication
    private var lock: PowerManager.WakeLock? = null

    override fun onBind(intent: Intent) = null

    override fun onStartCommand(intent: Intent, flags: Int, startId: Int): Int {
        val run = app.longRun
        if (intent.action == CANCEL) run?.cancel()
        val left = run?.takeIf { it.stage == Stage.RUNNING }?.let { it.plan.seconds * 1000L }
        startForeground(ID, notification(left ?: 0)) // Which Android demands, also of a service that ends at once.
        if (left == null) end() else begin(left)
        return START_NOT_STICKY
    }

    override fun onDestroy() {
        lock?.release()
        current = null
        super.onDestroy()
    }

    private fun begin(leftMs: Long) {
        current = this
        lock = lock ?: service<PowerManager>().newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "clipstep:bench").apply {
            setReferenceCounted(false)
            acquire(leftMs + SPARE_MS)
        }
    }

    private fun end() {
        stopForeground(STOP_FOREGROUND_REMOVE)
        stopSelf()
    }

    private fun notification(leftMs: Long): Notification {
        service<NotificationManager>().createNotificationChannel(NotificationChannel(CHANNEL, getString(R.string.benchmark), NotificationManager.IMPORTANCE_LOW))
        val screen = PendingIntent.getActivity(this, 0, Intent(this, BenchActivity::class.java), PendingIntent.FLAG_IMMUTABLE)
        val cancel = PendingIntent.getService(this, 0, Intent(this, KeepService::class.java).setAction(CANCEL), PendingIntent.FLAG_IMMUTABLE)
        return Notification.Builder(this, CHANNEL).setSmallIcon(R.drawable.ic_speed).setContentTitle(getString(R.string.long_notification))
            .setWhen(System.currentTimeMillis() + leftMs).setUsesChronometer(true).setChronometerCountDown(true).setOngoing(true).setContentIntent(screen)
            .addAction(Notification.Action.Builder(null, getString(R.string.cancel), cancel).build()).build()
    }

    companion object {
        private var current: KeepService? = null

        fun start(context: Context) {
            context.startForegroundService(Intent(context, KeepService::class.java))
        }

        /** Ends it, or lets it end as soon as Android has started it. */
        fun stop() {
            current?.end()
        }
    }
}
