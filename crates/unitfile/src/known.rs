//! The sections and keys that systemd and Quadlet know, old spellings included, and those of `[X-Fleet]`.
//!
//! What `systemd --dump-configuration-items` of version 252 prints, and what later versions up to 258 added; and what
//! Quadlet of Podman 4.4 to 5.6 reads, podman-systemd.unit(5). All of it, not only the common keys, so that one which
//! is rare but right is not taken for a slip of the fingers.

use sealift_model::UnitKind;

use crate::fleet;

/// Every section that some kind of unit file has.
pub(crate) const SECTIONS: [&str; 21] = [
    "Unit",
    "Install",
    "Service",
    "Socket",
    "Timer",
    "Path",
    "Mount",
    "Automount",
    "Swap",
    "Slice",
    "Target",
    "Device",
    "Container",
    "Pod",
    "Volume",
    "Network",
    "Kube",
    "Image",
    "Build",
    "Quadlet",
    fleet::SECTION,
];

/// The section that only this kind of file has.
pub(crate) fn own_section(kind: UnitKind) -> &'static str {
    match kind {
        UnitKind::Service => "Service",
        UnitKind::Socket => "Socket",
        UnitKind::Device => "Device",
        UnitKind::Mount => "Mount",
        UnitKind::Automount => "Automount",
        UnitKind::Swap => "Swap",
        UnitKind::Target => "Target",
        UnitKind::Path => "Path",
        UnitKind::Timer => "Timer",
        UnitKind::Slice => "Slice",
        UnitKind::Container => "Container",
        UnitKind::Pod => "Pod",
        UnitKind::Volume => "Volume",
        UnitKind::Network => "Network",
        UnitKind::Kube => "Kube",
        UnitKind::Image => "Image",
        UnitKind::Build => "Build",
    }
}

/// The sections that somebody reads in this kind of file.
pub(crate) fn read_sections(kind: UnitKind) -> Vec<&'static str> {
    let mut sections = vec!["Unit", "Install", own_section(kind), fleet::SECTION];
    if kind.is_quadlet() {
        sections.extend(["Service", "Quadlet"]);
    }
    sections
}

/// Whether systemd reads systemd.resource-control(5) in it.
pub(crate) fn has_control_group(section: &str) -> bool {
    ["Service", "Socket", "Mount", "Swap", "Slice"].contains(&section)
}

/// Whether systemd keeps a control group for units of this kind.
pub(crate) fn has_processes(kind: UnitKind) -> bool {
    kind.is_service() || matches!(kind, UnitKind::Socket | UnitKind::Mount | UnitKind::Swap | UnitKind::Slice)
}

/// The keys of a section. None for a section whose keys nobody checks.
pub(crate) fn keys(section: &str) -> Option<impl Iterator<Item = &'static str>> {
    let lists: &[&'static str] = match section {
        "Unit" => &[UNIT],
        "Install" => &[INSTALL],
        "Service" => &[SERVICE, EXEC, KILL, CGROUP],
        "Socket" => &[SOCKET, EXEC, KILL, CGROUP],
        "Timer" => &[TIMER],
        "Path" => &[PATH],
        "Mount" => &[MOUNT, EXEC, KILL, CGROUP],
        "Automount" => &[AUTOMOUNT],
        "Swap" => &[SWAP, EXEC, KILL, CGROUP],
        "Slice" => &[SLICE, CGROUP],
        "Container" => &[CONTAINER],
        "Pod" => &[POD],
        "Volume" => &[VOLUME],
        "Network" => &[NETWORK],
        "Kube" => &[KUBE],
        "Image" => &[IMAGE],
        "Build" => &[BUILD],
        "Quadlet" => &["DefaultDependencies"],
        fleet::SECTION => &[FLEET],
        _ => return None,
    };
    Some(lists.iter().flat_map(|list| list.split_ascii_whitespace()))
}

/// `[X-Fleet]` without its deprecated spellings; first fleet's own keys, then those that came after it.
pub(crate) const FLEET: &str = "
    MachineID MachineOf MachineMetadata Conflicts Global Replaces
    Memory CPU MemoryMax CPUMax MachineClass Spread PreferMachineMetadata PreferMachineOf Priority Preempt
    Replicas CutOff UpdateMaxOut UpdateCanary UpdateOrder UpdateHold UpdateHealth UpdateTimeout
    UpdateOnFailure
";

const UNIT: &str = "
    Description Documentation SourcePath Requires Requisite Wants BindsTo BindTo Upholds Conflicts
    Before After OnSuccess OnFailure PropagatesReloadTo PropagateReloadTo ReloadPropagatedFrom
    PropagateReloadFrom PropagatesStopTo StopPropagatedFrom PartOf JoinsNamespaceOf RequiresOverridable
    RequisiteOverridable RequiresMountsFor StopWhenUnneeded RefuseManualStart RefuseManualStop
    AllowIsolate DefaultDependencies OnSuccessJobMode OnFailureJobMode OnFailureIsolate IgnoreOnIsolate
    JobTimeoutSec JobRunningTimeoutSec JobTimeoutAction JobTimeoutRebootArgument StartLimitIntervalSec
    StartLimitInterval StartLimitBurst StartLimitAction FailureAction SuccessAction
    FailureActionExitStatus SuccessActionExitStatus RebootArgument ConditionPathExists
    ConditionPathExistsGlob ConditionPathIsDirectory ConditionPathIsSymbolicLink
    ConditionPathIsMountPoint ConditionPathIsReadWrite ConditionPathIsEncrypted
    ConditionDirectoryNotEmpty ConditionFileNotEmpty ConditionFileIsExecutable ConditionNeedsUpdate
    ConditionFirstBoot ConditionArchitecture ConditionFirmware ConditionVirtualization ConditionHost
    ConditionKernelCommandLine ConditionKernelVersion ConditionCredential ConditionSecurity
    ConditionCapability ConditionACPower ConditionMemory ConditionCPUFeature ConditionCPUs
    ConditionEnvironment ConditionUser ConditionGroup ConditionControlGroupController ConditionOSRelease
    ConditionMemoryPressure ConditionCPUPressure ConditionIOPressure AssertPathExists
    AssertPathExistsGlob AssertPathIsDirectory AssertPathIsSymbolicLink AssertPathIsMountPoint
    AssertPathIsReadWrite AssertPathIsEncrypted AssertDirectoryNotEmpty AssertFileNotEmpty
    AssertFileIsExecutable AssertNeedsUpdate AssertFirstBoot AssertArchitecture AssertVirtualization
    AssertHost AssertKernelCommandLine AssertKernelVersion AssertCredential AssertSecurity
    AssertCapability AssertACPower AssertMemory AssertCPUFeature AssertCPUs AssertEnvironment AssertUser
    AssertGroup AssertControlGroupController AssertOSRelease AssertMemoryPressure AssertCPUPressure
    AssertIOPressure CollectMode WantsMountsFor SurviveFinalKillSignal IgnoreOnSnapshot ConditionVersion
    AssertVersion ConditionKernelModuleLoaded AssertKernelModuleLoaded
";

const INSTALL: &str = "Alias WantedBy RequiredBy Also DefaultInstance UpheldBy";

const SERVICE: &str = "
    PIDFile ExecCondition ExecStartPre ExecStart ExecStartPost ExecReload ExecStop ExecStopPost
    RestartSec TimeoutSec TimeoutStartSec TimeoutStopSec TimeoutAbortSec TimeoutStartFailureMode
    TimeoutStopFailureMode RuntimeMaxSec RuntimeRandomizedExtraSec WatchdogSec StartLimitInterval
    StartLimitBurst StartLimitAction FailureAction RebootArgument Type ExitType Restart
    PermissionsStartOnly RootDirectoryStartOnly RemainAfterExit GuessMainPID RestartPreventExitStatus
    RestartForceExitStatus SuccessExitStatus NonBlocking BusName FileDescriptorStoreMax NotifyAccess
    Sockets USBFunctionDescriptors USBFunctionStrings OOMPolicy RestartSteps RestartMaxDelaySec
    RestartMode SysVStartPriority FileDescriptorStorePreserve BusPolicy OpenFile ReloadSignal
";

const SOCKET: &str = "
    ListenStream ListenDatagram ListenSequentialPacket ListenFIFO ListenNetlink ListenSpecial
    ListenMessageQueue ListenUSBFunction SocketProtocol BindIPv6Only Backlog BindToDevice ExecStartPre
    ExecStartPost ExecStopPre ExecStopPost TimeoutSec SocketUser SocketGroup SocketMode DirectoryMode
    Accept FlushPending Writable MaxConnections MaxConnectionsPerSource KeepAlive KeepAliveTimeSec
    KeepAliveIntervalSec KeepAliveProbes DeferAcceptSec NoDelay Priority ReceiveBuffer SendBuffer IPTOS
    IPTTL Mark PipeSize FreeBind Transparent Broadcast PassCredentials PassSecurity PassPacketInfo
    Timestamping TCPCongestion ReusePort MessageQueueMaxMessages MessageQueueMessageSize RemoveOnStop
    Symlinks FileDescriptorName Service TriggerLimitIntervalSec TriggerLimitBurst SmackLabel
    SmackLabelIPIn SmackLabelIPOut SELinuxContextFromNet PassPIDFD AcceptFileDescriptors
    PassFileDescriptorsToExec PollLimitIntervalSec PollLimitBurst DeferTrigger DeferTriggerMaxSec
";

const TIMER: &str = "
    OnCalendar OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec OnUnitInactiveSec OnClockChange
    OnTimezoneChange Persistent WakeSystem RemainAfterElapse FixedRandomDelay AccuracySec
    RandomizedDelaySec Unit DeferReactivation RandomizedOffsetSec
";

const PATH: &str = "
    PathExists PathExistsGlob PathChanged PathModified DirectoryNotEmpty Unit MakeDirectory
    DirectoryMode TriggerLimitIntervalSec TriggerLimitBurst
";

const MOUNT: &str = "
    What Where Options Type TimeoutSec DirectoryMode SloppyOptions LazyUnmount ForceUnmount
    ReadWriteOnly
";

const AUTOMOUNT: &str = "Where ExtraOptions DirectoryMode TimeoutIdleSec";

const SWAP: &str = "What Priority Options TimeoutSec";

const SLICE: &str = "ConcurrencySoftMax ConcurrencyHardMax";

/// systemd.exec(5): processes of `[Service]`, `[Socket]`, `[Mount]` and `[Swap]`.
const EXEC: &str = "
    WorkingDirectory RootDirectory RootImage RootImageOptions RootHash RootHashSignature RootVerity
    ExtensionDirectories ExtensionImages MountImages User Group SupplementaryGroups Nice OOMScoreAdjust
    CoredumpFilter IOSchedulingClass IOSchedulingPriority CPUSchedulingPolicy CPUSchedulingPriority
    CPUSchedulingResetOnFork CPUAffinity NUMAPolicy NUMAMask UMask Environment EnvironmentFile
    PassEnvironment UnsetEnvironment DynamicUser RemoveIPC StandardInput StandardOutput StandardError
    StandardInputText StandardInputData TTYPath TTYReset TTYVHangup TTYVTDisallocate TTYRows TTYColumns
    SyslogIdentifier SyslogFacility SyslogLevel SyslogLevelPrefix LogLevelMax LogRateLimitIntervalSec
    LogRateLimitBurst LogExtraFields SecureBits CapabilityBoundingSet AmbientCapabilities TimerSlackNSec
    NoNewPrivileges KeyringMode ProtectProc ProcSubset SystemCallFilter SystemCallArchitectures
    SystemCallErrorNumber SystemCallLog MemoryDenyWriteExecute RestrictNamespaces RestrictRealtime
    RestrictSUIDSGID RestrictAddressFamilies LockPersonality RestrictFileSystems LimitCPU LimitFSIZE
    LimitDATA LimitSTACK LimitCORE LimitRSS LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS
    LimitSIGPENDING LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME ReadWriteDirectories
    ReadOnlyDirectories InaccessibleDirectories ReadWritePaths ReadOnlyPaths InaccessiblePaths ExecPaths
    NoExecPaths ExecSearchPath BindPaths BindReadOnlyPaths TemporaryFileSystem PrivateTmp PrivateDevices
    ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectClock ProtectControlGroups
    NetworkNamespacePath IPCNamespacePath LogNamespace PrivateNetwork PrivateUsers PrivateMounts
    PrivateIPC ProtectSystem ProtectHome MountFlags MountAPIVFS Personality RuntimeDirectoryPreserve
    RuntimeDirectoryMode RuntimeDirectory StateDirectoryMode StateDirectory CacheDirectoryMode
    CacheDirectory LogsDirectoryMode LogsDirectory ConfigurationDirectoryMode ConfigurationDirectory
    SetCredential SetCredentialEncrypted LoadCredential LoadCredentialEncrypted TimeoutCleanSec PAMName
    IgnoreSIGPIPE UtmpIdentifier UtmpMode SELinuxContext AppArmorProfile SmackProcessLabel
    ProtectHostname RootImagePolicy RootEphemeral ExtensionImagePolicy MountImagePolicy
    SetLoginEnvironment LogFilterPatterns Capabilities PrivateBPF BPFDelegateCommands BPFDelegateMaps
    BPFDelegatePrograms BPFDelegateAttachments DelegateNamespaces LandlockConfig PrivatePIDs
    BindLogSockets StateDirectoryAccounting StateDirectoryQuota CacheDirectoryAccounting
    CacheDirectoryQuota LogsDirectoryAccounting LogsDirectoryQuota ImportCredential MemoryKSM
";

/// systemd.kill(5), for the same sections.
const KILL: &str = "
    SendSIGKILL SendSIGHUP KillMode KillSignal RestartKillSignal FinalKillSignal WatchdogSignal
";

/// systemd.resource-control(5), for the same sections and `[Slice]`.
const CGROUP: &str = "
    Slice AllowedCPUs StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes CPUAccounting
    CPUWeight StartupCPUWeight CPUShares StartupCPUShares CPUQuota CPUQuotaPeriodSec MemoryAccounting
    MemoryMin DefaultMemoryMin DefaultMemoryLow MemoryLow MemoryHigh MemoryMax MemorySwapMax MemoryLimit
    DeviceAllow DevicePolicy IOAccounting IOWeight StartupIOWeight IODeviceWeight IOReadBandwidthMax
    IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax IODeviceLatencyTargetSec BlockIOAccounting
    BlockIOWeight StartupBlockIOWeight BlockIODeviceWeight BlockIOReadBandwidth BlockIOWriteBandwidth
    TasksAccounting TasksMax Delegate DisableControllers IPAccounting IPAddressAllow IPAddressDeny
    IPIngressFilterPath IPEgressFilterPath ManagedOOMSwap ManagedOOMMemoryPressure
    ManagedOOMMemoryPressureLimit ManagedOOMPreference BPFProgram SocketBindAllow SocketBindDeny
    RestrictNetworkInterfaces DefaultStartupMemoryLow StartupMemoryLow StartupMemoryHigh
    StartupMemoryMax StartupMemorySwapMax MemoryZSwapMax StartupMemoryZSwapMax MemoryZSwapWriteback
    DelegateSubgroup ManagedOOMMemoryPressureDurationSec NetClass MemoryPressureThresholdSec
    MemoryPressureWatch NFTSet CoredumpReceive
";

const CONTAINER: &str = "
    AddCapability AddDevice AddHost Annotation AppArmor AutoUpdate CgroupsMode ContainerName
    ContainersConfModule DNS DNSOption DNSSearch DropCapability Entrypoint Environment EnvironmentFile
    EnvironmentHost Exec ExposeHostPort GIDMap GlobalArgs Group GroupAdd HealthCmd HealthInterval
    HealthLogDestination HealthMaxLogCount HealthMaxLogSize HealthOnFailure HealthRetries
    HealthStartPeriod HealthStartupCmd HealthStartupInterval HealthStartupRetries HealthStartupSuccess
    HealthStartupTimeout HealthTimeout HostName HttpProxy IP IP6 Image Label LogDriver LogOpt Mask Memory
    Mount Network NetworkAlias NoNewPrivileges Notify PidsLimit Pod PodmanArgs PublishPort Pull ReadOnly
    ReadOnlyTmpfs ReloadCmd ReloadSignal RemapGid RemapUid RemapUidSize RemapUsers Retry RetryDelay Rootfs
    RunInit SeccompProfile Secret SecurityLabelDisable SecurityLabelFileType SecurityLabelLevel
    SecurityLabelNested SecurityLabelType ServiceName ShmSize StartWithPod StopSignal StopTimeout
    SubGIDMap SubUIDMap Sysctl Timezone Tmpfs UIDMap Ulimit Unmask User UserNS VolatileTmp Volume
    WorkingDir
";

const POD: &str = "
    AddHost ContainersConfModule DNS DNSOption DNSSearch ExitPolicy GIDMap GlobalArgs HostName IP IP6
    Label Network NetworkAlias PodName PodmanArgs PublishPort RemapGid RemapUid RemapUidSize RemapUsers
    ServiceName ShmSize StopTimeout SubGIDMap SubUIDMap UIDMap UserNS Volume
";

const VOLUME: &str = "
    ContainersConfModule Copy Device Driver GID GlobalArgs Group Image Label Options PodmanArgs
    ServiceName Type UID User VolumeName
";

const NETWORK: &str = "
    ContainersConfModule DNS DisableDNS Driver Gateway GlobalArgs IPAMDriver IPRange IPv6 InterfaceName
    Internal Label NetworkDeleteOnStop NetworkName Options PodmanArgs ServiceName Subnet
";

const KUBE: &str = "
    AutoUpdate ConfigMap ContainersConfModule ExitCodePropagation GlobalArgs KubeDownForce LogDriver
    LogOpt Network PodmanArgs PublishPort RemapGid RemapUid RemapUidSize RemapUsers ServiceName
    SetWorkingDirectory UserNS Yaml
";

const IMAGE: &str = "
    AllTags Arch AuthFile CertDir ContainersConfModule Creds DecryptionKey GlobalArgs Image ImageTag OS
    PodmanArgs Policy Retry RetryDelay ServiceName TLSVerify Variant
";

const BUILD: &str = "
    Annotation Arch AuthFile BuildArg ContainersConfModule DNS DNSOption DNSSearch Environment File
    ForceRM GlobalArgs GroupAdd IgnoreFile ImageTag Label Network PodmanArgs Pull Retry RetryDelay Secret
    ServiceName SetWorkingDirectory TLSVerify Target Variant Volume
";
