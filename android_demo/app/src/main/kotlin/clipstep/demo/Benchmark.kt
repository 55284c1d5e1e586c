package clipstep.demo

import clipstep.runtime.Bundle
import java.io.File

/** What to measure: in each of [rounds], every engine with every thread count runs [steps] steps after [warmUp] warm-up steps. */
data class Plan(
    val bundle: Bundle, val engines: List<String>, val threads: List<Int>, val rounds: Int, val steps: Int, val warmUp: Int,
    val settings: Settings = Settings(),
    /** How many minutes the fastest of them then runs without pause; 0 for none. */
    val minutes: Int = 0,
) {
    /** The tasks of one round. */
    val tasks: List<Task> get() = threads.flatMap { count -> engines.map { Task(bundle.path.path, bundle.manifestSha256, it, count, warmUp, steps, settings) } }
}

/** Runs a plan task by task, and then gives the records to its listener. Used on the main thread. */
internal class Benchmark(val plan: Plan, private val measurer: Measurer, private val facts: DeviceFacts, private val listener: Listener) {
    interface Listener {
        fun turn(round: Int, rounds: Int, task: Task)

        fun done(records: List<Record>)

        fun failed(sentence: String)
    }

    private val tasks = List(plan.rounds) { plan.tasks }.flatten()
    private val turns = mutableListOf<Measurement>()
    private val temperature = facts.temperatureC()

    fun start() {
        val task = tasks.getOrNull(turns.size) ?: return finish()
        listener.turn(turns.size / plan.tasks.size + 1, plan.rounds, task)
        measurer.measure(task, { turns += it; start() }, listener::failed)
    }

    fun cancel() = measurer.cancel()

    private fun finish() {
        val phone = facts.phone(temperature)
        val byTask = tasks.zip(turns).groupBy({ it.first }, { it.second })
        listener.done(byTask.map { (task, turns) -> record(plan.bundle, task, turns, facts, phone) })
    }
}

/** The folder of records: `NAME.running` while a benchmark runs, then `NAME.jsonl`, or `NAME.error` if it failed. */
internal class Records(val folder: File) {
    fun begin(name: String) {
        folder.mkdirs()
        for (end in listOf("jsonl", "error", "png")) File(folder, "$name.$end").delete()
        File(folder, "$name.running").writeText("")
    }

    /** Writes records, each one as a JSON object. */
    fun write(name: String, records: List<String>): File = end(name, "jsonl", records.joinToString("") { it + "\n" })

    fun fail(name: String, sentence: String): File = end(name, "error", sentence + "\n")

    /** The sustained runs that were written, the newest first. A file without one is passed over, also if it is damaged. */
    fun sustained(): List<Kept> = folder.listFiles { file -> file.extension == "jsonl" }.orEmpty().mapNotNull { kept(it) }.sortedByDescending { it.measured }

    /** Deletes what benchmarks left that ended because the app did, and returns whether there were any. */
    fun interrupted(): Boolean = folder.listFiles { file -> file.name.endsWith(".running") || file.name.endsWith(".part") }.orEmpty().map { it.delete() }.any()

    private fun end(name: String, end: String, text: String): File {
        val part = File(folder, "$name.$end.part")
        val file = File(folder, "$name.$end")
        part.writeText(text)
        part.renameTo(file)
        File(folder, "$name.running").delete()
        return file
    }
}
