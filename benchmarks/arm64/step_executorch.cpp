// Runs golden steps of a .pte in ExecuTorch with one thread, while a QEMU plugin counts instructions: the counterpart of step_onnx.py.
//
// usage: step_executorch FILE FOLDER STEPS [operators]
// FOLDER/inputs.bin holds the subclips and then the initial states, raw. It runs STEPS steps of one stream and then the first step again; step i
// takes subclip i modulo the number of subclips. FOLDER/outputs.bin gets every output of every step, raw. getppid is called before and after
// each step, as a mark for the counter. With "operators", FOLDER/operators.txt lists what ran, in order: "start NAME" and "end", each with a
// call of getuid, and between them, if a delegate reports its own operators, "inside NANOSECONDS NAME" by the clock below.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/core/event_tracer.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {
bool marks_clock = false;
}

// Replaces the clock of the whole process by one that advances a millisecond with each reading: the time that XNNPACK reports for an operator
// then says in how many parts it ran. If operators are asked for, each reading is marked by a call of getpid.
extern "C" int clock_gettime(clockid_t, timespec *time) noexcept {
    static long calls = 0;
    calls++;
    if (marks_clock) getpid();
    time->tv_sec = calls / 1000;
    time->tv_nsec = calls % 1000 * 1000000;
    return 0;
}

namespace executorch::extension::threadpool {  // The wheel ships this library without its header.
class ThreadPool {
 public:
    size_t get_thread_count() const;
    bool _unsafe_reset_threadpool(uint32_t);
};
ThreadPool *get_threadpool();
}  // namespace executorch::extension::threadpool

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::extension::Module;
using executorch::runtime::DebugHandle;
using executorch::runtime::DelegateDebugIntId;
using executorch::runtime::EValue;
using executorch::runtime::EventTracerEntry;
using executorch::runtime::Result;
using Bytes = std::vector<char>;

namespace {

// Logs the operators under the names that ExecuTorch and its delegates give them. It does not request their outputs.
class OperatorLog final : public executorch::runtime::EventTracer {
 public:
    explicit OperatorLog(const std::string &path) : out_(path) {}

    EventTracerEntry start_profiling(const char *name, executorch::runtime::ChainID, DebugHandle) override {
        out_ << "start " << name << "\n";
        getuid();
        return {};
    }
    void end_profiling(EventTracerEntry) override {
        getuid();
        out_ << "end\n";
    }
    void log_profiling_delegate(const char *name, DelegateDebugIntId, et_timestamp_t start, et_timestamp_t end, const void *, size_t) override {
        out_ << "inside " << end - start << " " << name << "\n";
    }

    void create_event_block(const char *) override {}
    EventTracerEntry start_profiling_delegate(const char *, DelegateDebugIntId) override { return {}; }
    void end_profiling_delegate(EventTracerEntry, const void *, size_t) override {}
    void track_allocation(executorch::runtime::AllocatorID, size_t) override {}
    executorch::runtime::AllocatorID track_allocator(const char *) override { return 0; }
    Result<bool> log_evalue(const EValue &, executorch::runtime::LoggedEValueType) override { return false; }
    Result<bool> log_intermediate_output_delegate(const char *, DelegateDebugIntId, const Tensor &) override { return false; }
    Result<bool> log_intermediate_output_delegate(const char *, DelegateDebugIntId, executorch::runtime::ArrayRef<Tensor>) override { return false; }
    Result<bool> log_intermediate_output_delegate(const char *, DelegateDebugIntId, const int &) override { return false; }
    Result<bool> log_intermediate_output_delegate(const char *, DelegateDebugIntId, const bool &) override { return false; }
    Result<bool> log_intermediate_output_delegate(const char *, DelegateDebugIntId, const double &) override { return false; }
    void set_delegation_intermediate_output_filter(executorch::runtime::EventTracerFilterBase *) override {}

 private:
    std::ofstream out_;
};

template <typename T>
T checked(Result<T> result, const char *what) {
    if (!result.ok()) throw std::runtime_error(std::string(what) + ": ExecuTorch error " + std::to_string(int(result.error())));
    return std::move(*result);
}

// One step's inputs: frames and states, each with its own memory that a step reads and never writes.
struct Inputs {
    std::vector<Bytes> memory;
    std::vector<executorch::extension::TensorPtr> tensors;

    explicit Inputs(const executorch::runtime::MethodMeta &meta) {
        for (size_t i = 0; i < meta.num_inputs(); i++) {
            auto info = checked(meta.input_tensor_meta(i), "input");
            memory.emplace_back(info.nbytes());
            tensors.push_back(executorch::extension::from_blob(
                memory.back().data(), std::vector<SizesType>(info.sizes().begin(), info.sizes().end()), info.scalar_type()));
        }
    }
    std::vector<EValue> values() const {
        std::vector<EValue> all;
        for (const auto &tensor : tensors) all.emplace_back(*tensor);
        return all;
    }
};

Bytes read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

void run(const std::string &file, const std::string &folder, int steps, bool operators) {
    auto *pool = executorch::extension::threadpool::get_threadpool();
    pool->_unsafe_reset_threadpool(1);
    if (pool->get_thread_count() != 1) throw std::runtime_error("ExecuTorch did not take the thread count 1");
    std::unique_ptr<OperatorLog> log;
    marks_clock = operators;
    if (operators) log = std::make_unique<OperatorLog>(folder + "/operators.txt");
    Module module(file, Module::LoadMode::File, std::move(log));
    Inputs inputs(checked(module.method_meta("forward"), "loading"));
    const Bytes given = read(folder + "/inputs.bin");
    const size_t frame_bytes = inputs.memory[0].size();
    size_t state_bytes = 0;
    for (size_t i = 1; i < inputs.memory.size(); i++) state_bytes += inputs.memory[i].size();
    const size_t subclips = (given.size() - state_bytes) / frame_bytes;
    std::ofstream out(folder + "/outputs.bin", std::ios::binary);
    for (int step = 0; step <= steps; step++) {
        std::memcpy(inputs.memory[0].data(), given.data() + (step % steps % subclips) * frame_bytes, frame_bytes);
        const char *initial = given.data() + subclips * frame_bytes;
        for (size_t i = 1; step % steps == 0 && i < inputs.memory.size(); initial += inputs.memory[i].size(), i++)
            std::copy_n(initial, inputs.memory[i].size(), inputs.memory[i].data());
        const auto values = inputs.values();
        getppid();
        auto result = module.forward(values);
        getppid();
        const auto outputs = checked(std::move(result), "step");
        for (size_t i = 0; i < outputs.size(); i++) {
            const Tensor tensor = outputs[i].toTensor();
            const char *data = static_cast<const char *>(tensor.const_data_ptr());
            out.write(data, tensor.nbytes());
            if (i > 0 && i < inputs.memory.size()) std::copy_n(data, tensor.nbytes(), inputs.memory[i].data());
        }
    }
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc != 4 && argc != 5) throw std::runtime_error("usage: step_executorch FILE FOLDER STEPS [operators]");
    run(argv[1], argv[2], std::stoi(argv[3]), argc == 5);
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
