// A device that is none: its memory is the host's and its operators are the CPU's, but tensors of two devices do not mix,
// as on a GPU. Every operator goes through one boxed function, which shows the CPU's operator aliases of the arguments.

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <functional>

namespace {

const c10::Device kDevice(c10::DeviceType::PrivateUse1, 0);

// ---- generators: a CPU generator under the device's name

struct Generator final : c10::GeneratorImpl {
  at::Generator inner = at::detail::createCPUGenerator();
  Generator() : GeneratorImpl(kDevice, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t) override { TORCH_CHECK(false, "no offsets"); }
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& state) override {
    inner.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  Generator* clone_impl() const override {
    auto* copy = new Generator();
    copy->inner = inner.clone();
    return copy;
  }
};

const at::Generator& default_generator() {
  static const at::Generator generator = at::make_generator<Generator>();
  return generator;
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? std::malloc(bytes) : nullptr;
    return {memory, memory, &std::free, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::PrivateUse1; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream getDefaultStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  c10::Device getDevice() const override { return kDevice; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<Generator>(); }
  void resizePrivateUse1Bytes(const c10::Storage&, size_t) const override { TORCH_CHECK(false, "a storage of a fixed size"); }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
};

// ---- tensors

bool is_ours(const at::Tensor& t) { return t.defined() && t.device().type() == c10::DeviceType::PrivateUse1; }

// A tensor over the memory of `owner`, which lives as long as the result.
at::Tensor over(const c10::Storage& owner, c10::Device device, const at::Tensor& like) {
  auto* keep = new c10::Storage(owner);
  c10::DataPtr data(owner.mutable_data(), keep, [](void* p) { delete static_cast<c10::Storage*>(p); }, device);
  c10::Storage storage(c10::Storage::use_byte_size_t(), owner.nbytes(), std::move(data), device.is_cpu() ? c10::GetCPUAllocator() : nullptr, device.is_cpu());
  const auto key = device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::PrivateUse1;
  auto t = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  t.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return t;
}

struct Call {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // of the device, and its alias on the CPU
  bool any_ours = false, any_host = false;
  std::string host_name;

  at::Tensor to_host(const at::Tensor& t) {
    if (!t.defined()) return t;
    if (!is_ours(t)) {
      if (t.device().is_cpu() && t.dim() > 0) any_host = true;
      return t;
    }
    any_ours = true;
    for (auto& [ours, host] : pairs) {
      if (ours.is_same(t)) return host;
    }
    at::Tensor host = over(t.storage(), c10::Device(c10::kCPU), t);
    if (t.is_conj()) host.unsafeGetTensorImpl()->_set_conj(true);
    if (t.is_neg()) host.unsafeGetTensorImpl()->_set_neg(true);
    pairs.emplace_back(t, host);
    return host;
  }

  at::Tensor to_ours(const at::Tensor& t) {
    if (!t.defined() || !t.device().is_cpu()) return t;
    for (auto& [ours, host] : pairs) {
      if (host.is_same(t)) return ours;
    }
    for (auto& [ours, host] : pairs) {  // a view: the memory of the device's tensor, and its storage
      if (t.has_storage() && host.storage().data() == t.storage().data() && t.storage().nbytes()) {
        auto view = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(ours.storage()),
                                                             ours.key_set(), t.dtype());
        view.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
        return view;
      }
    }
    return over(t.storage(), kDevice, t);
  }

  // Operators that change an argument's shape, as squeeze_ and resize_, changed that of the alias.
  void reshape_arguments() {
    for (auto& [ours, host] : pairs) {
      if (host.storage().data() != ours.storage().data()) {
        ours.unsafeGetTensorImpl()->set_storage_keep_dtype(over(host.storage(), kDevice, host).storage());
      }
      if (host.sizes() != ours.sizes() || host.strides() != ours.strides() || host.storage_offset() != ours.storage_offset()) {
        ours.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
      }
    }
  }
};

c10::IValue map(const c10::IValue& value, const std::function<at::Tensor(const at::Tensor&)>& f) {
  if (value.isTensor()) return f(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& t : value.toTensorVector()) list.push_back(f(t));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& t : value.toOptionalTensorList()) {
      list.push_back(t.has_value() ? std::optional<at::Tensor>(f(*t)) : std::nullopt);
    }
    return list;
  }
  return value;
}

bool may_mix(const std::string& name) {
  // A GPU takes indices from the host too.
  static const std::vector<std::string> names = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"};
  return std::find(names.begin(), names.end(), name) != names.end();
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size(), begin = stack->size() - count;
  Call call;
  const auto to_host = [&](const at::Tensor& t) { return call.to_host(t); };
  bool on_device = false;
  for (size_t i = begin; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    value = map(value, to_host);
    if (value.isDevice() && value.toDevice().type() == c10::DeviceType::PrivateUse1) {
      value = c10::IValue(c10::Device(c10::kCPU));
      on_device = true;
    } else if (value.isGenerator()) {
      const at::Generator generator = value.toGenerator();
      TORCH_CHECK(generator.device().type() == c10::DeviceType::PrivateUse1, schema.name(), ": Expected a generator of the device, got cpu");
      value = c10::IValue(static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->inner);
    }
  }
  TORCH_CHECK(!(call.any_ours && call.any_host) || may_mix(schema.name()), schema.name(),
              ": Expected all tensors to be on the same device, but found at least two devices, standin:0 and cpu!");
  {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  call.reshape_arguments();
  const size_t first = stack->size() - schema.returns().size();
  if (!call.any_ours && !on_device) return;
  for (size_t i = first; i < stack->size(); ++i) {
    (*stack)[i] = map((*stack)[i], [&](const at::Tensor& t) { return call.to_ours(t); });
  }
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  Call call;
  const at::Tensor source = call.to_host(from), target = call.to_host(to);
  target.copy_(source);
  return to;
}

// Operators of other names on the CPU.

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                       at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups) {
  Call call;
  const auto host_bias = bias.has_value() ? std::optional<at::Tensor>(call.to_host(*bias)) : std::nullopt;
  const at::Tensor host_x = call.to_host(x), host_weight = call.to_host(weight);
  TORCH_CHECK(!call.any_host, "convolution: Expected all tensors to be on the same device");
  return call.to_ours(at::convolution(host_x, host_weight, host_bias, stride, padding, dilation, transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                                                    at::IntArrayRef stride, at::IntArrayRef padding,
                                                                    at::IntArrayRef dilation, bool transposed,
                                                                    at::IntArrayRef output_padding, int64_t groups, std::array<bool, 3> mask) {
  Call call;
  const at::Tensor host_grad = call.to_host(grad), host_x = call.to_host(x), host_weight = call.to_host(weight);
  TORCH_CHECK(!call.any_host, "convolution_backward: Expected all tensors to be on the same device");
  auto [dx, dweight, dbias] = at::convolution_backward(host_grad, host_x, host_weight, at::IntArrayRef{grad.size(1)}, stride, padding,
                                                       dilation, transposed, output_padding, groups, mask);
  return {call.to_ours(dx), call.to_ours(dweight), call.to_ours(dbias)};
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return self;
}

at::Tensor& set_whole_storage(at::Tensor& self, at::Storage storage) {
  const int64_t size = static_cast<int64_t>(storage.nbytes() / self.dtype().itemsize());
  return set_storage(self, std::move(storage), 0, {size}, {1});
}

int64_t attention_choice(const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, double, bool,
                         std::optional<double>, bool) {
  return 0;  // the formula: the fused ones are chosen by device
}

}  // namespace

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_copy_from", &copy_from);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("_fused_sdp_choice", &attention_choice);
}
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(layer_norm, fp32)
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

namespace {
const bool registered = [] {
  static Allocator allocator;
  c10::SetAllocator(c10::DeviceType::PrivateUse1, &allocator);
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  return true;
}();
}  // namespace
