// Who does what in a call of native.cpp: the calling thread and its helpers.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <pthread.h>
#include <signal.h>
#endif

namespace {

// A call is a row of phases, each a set of slices that may be done at the same time, the next beginning when all are
// done. A thread takes its own slice first and then any that nobody has taken. So a helper that the system has not
// woken yet costs nothing: the caller does its part, and it joins in at the phase it finds.

// Calls at work, of every session of this library: a helper that waits for its own leaves the core to them.
inline std::atomic<int> at_work{0};

inline void breathe() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
}

class Team {
public:
    // program(walk) does a whole call, phase by phase; every thread of the team walks through all of it
    class Walk;
    using Program = void (*)(void*, Walk&);

    Team(int threads, Program program, void* whose)
        : threads_(threads), program_(program), whose_(whose), taken_(new Taken[threads]) {}

    void start() {
        for (int i = 1; i < threads_; i++) helpers_.emplace_back([this, i] { help(i); });
    }

    ~Team() {
        stopped_ = true;
        wake();
        for (auto& helper : helpers_) helper.join();
    }

    void call(bool alone);
    bool asleep() const { return sleeping_.load(std::memory_order_relaxed) > 0; }

private:
    struct alignas(64) Taken {
        std::atomic<int64_t> phase{0};  // the last in which this slice was taken
    };
    // How long a helper stays awake for the next call: to wake it takes some 25 us. The first stays longer where nothing
    // else computes, and with it the machine: what carries a request from a client to its session and back then finds a
    // core that need not be started. One core is enough for that, however many helpers there are.
    static constexpr auto PATIENCE = std::chrono::microseconds(50), LONG_PATIENCE = std::chrono::microseconds(500);
    static constexpr int PATIENT_SPINS = 2000;  // some 40 us

    void help(int member);
    void wake() {
        if (sleeping_.load() == 0 && !stopped_) return;
        { std::lock_guard<std::mutex> hold(lock_); }  // a helper about to sleep holds it
        wakened_.notify_all();
    }

    const int threads_;
    const Program program_;
    void* const whose_;
    const std::unique_ptr<Taken[]> taken_;
    alignas(64) std::atomic<int64_t> done_{0};  // slices, ever
    alignas(64) std::atomic<int64_t> called_{0};  // the number of phases before the call at work
    std::atomic<int> sleeping_{0};
    std::atomic<bool> stopped_{false};
    int64_t walked_ = 0;
    std::mutex lock_;
    std::condition_variable wakened_;
    std::vector<std::thread> helpers_;
    friend class Walk;
};

class Team::Walk {
public:
    Walk(Team& team, int member, bool alone, int64_t phase)
        : team_(team), member_(member), alone_(alone), phase_(phase) {}

    // work(slice) may read what the call is about only once it is called: a late helper walks past finished calls
    template <class Work>
    void phase(Work&& work) {
        if (alone_) {
            for (int s = 0; s < team_.threads_; s++) work(s);
            return;
        }
        const int64_t before = phase_++;
        for (int i = 0, s = member_; i < team_.threads_; i++, s = s + 1 == team_.threads_ ? 0 : s + 1) {
            int64_t last = before;
            auto& taken = team_.taken_[s].phase;
            if (taken.load(std::memory_order_relaxed) != before) continue;
            if (!taken.compare_exchange_strong(last, phase_, std::memory_order_acquire)) continue;
            work(s);
            team_.done_.fetch_add(1, std::memory_order_release);
        }
        const int64_t all_done = phase_ * team_.threads_;
        for (int spins = 0; team_.done_.load(std::memory_order_acquire) < all_done; spins++)
            if (spins < PATIENT_SPINS) breathe();
            else std::this_thread::yield();  // whoever is not done may be waiting for this core
    }

    int64_t walked() const { return phase_; }

private:
    Team& team_;
    const int member_;
    const bool alone_;
    int64_t phase_;
};

void Team::call(bool alone) {
    if (!alone) {
        called_.store(walked_ + 1);  // so that it differs from the last even before the first
        wake();
    }
    at_work++;  // after the helpers are called: they would take it for another session's
    Walk walk(*this, 0, alone, walked_);
    program_(whose_, walk);
    walked_ = walk.walked();
    at_work--;
}

void Team::help(int member) {
#if defined(__unix__)
    sigset_t every;  // signals are for the threads of the caller
    sigfillset(&every);
    pthread_sigmask(SIG_BLOCK, &every, nullptr);
#endif
    int64_t seen = 0;
    while (true) {
        const auto since = std::chrono::steady_clock::now();
        for (int spins = 1; called_.load(std::memory_order_acquire) == seen && !stopped_; spins++) {
            breathe();
            if (spins % 64) continue;
            const bool quiet = member == 1 && at_work.load(std::memory_order_relaxed) == 0;
            if (std::chrono::steady_clock::now() - since < (quiet ? LONG_PATIENCE : PATIENCE)) continue;
            std::unique_lock<std::mutex> hold(lock_);
            sleeping_++;
            wakened_.wait(hold, [&] { return called_.load() != seen || stopped_; });
            sleeping_--;
        }
        if (stopped_) return;
        seen = called_.load(std::memory_order_acquire);
        Walk walk(*this, member, false, seen - 1);
        program_(whose_, walk);
    }
}

}  // namespace
