// judge reads admission policies and requests from standard input, and prints what the admission plugin of Kubernetes' API server makes
// of them: the warnings of its type check, and the denial of each request. It is the plugin itself, with its own matching, CEL and
// limits of cost; what is missing of a server are its storage and the conversion between the two APIs of events. scripts/policy builds
// it, and tests/it/manifests/policy.rs asks it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	"nodetrust/openapi"
)

// request is a request to the API server.
type request struct {
	Operation   string              `json:"operation"`
	Resource    string              `json:"resource"`
	Group       string              `json:"group"`
	Subresource string              `json:"subresource"`
	Name        string              `json:"name"`
	Namespace   string              `json:"namespace"`
	Username    string              `json:"username"`
	Extra       map[string][]string `json:"extra"`
	Object      json.RawMessage     `json:"object"`
	OldObject   json.RawMessage     `json:"oldObject"`
}

// question is the input: policies and requests.
type question struct {
	Policies []*admissionv1.ValidatingAdmissionPolicy        `json:"policies"`
	Bindings []*admissionv1.ValidatingAdmissionPolicyBinding `json:"bindings"`
	Requests []request                                       `json:"requests"`
}

// answer is the output: warnings and denials.
type answer struct {
	Warnings []string `json:"warnings"`
	// for each request: "" is allowed; nil is one that this version's types cannot tell from no change, or do not take
	Denials []*string `json:"denials"`
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

// nobody is an authorizer that refuses; no rule of the policies asks it.
type nobody struct{}

func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, "", nil
}

// typed returns the object with the fields that this version of Kubernetes knows.
func typed(raw json.RawMessage, group, resource string) (runtime.Object, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var object runtime.Object
	switch {
	case resource == "nodes":
		object = &corev1.Node{}
	case resource == "leases":
		object = &coordinationv1.Lease{}
	case group == "":
		object = &corev1.Event{}
	default:
		object = &eventsv1.Event{}
	}
	return object, json.Unmarshal(raw, object)
}

// tells reports whether this version of Kubernetes can see the difference between two objects.
func tells(r request, object, old runtime.Object) bool {
	if old == nil || bytes.Equal(r.Object, r.OldObject) {
		return true
	}
	return !apiequality.Semantic.DeepEqual(object, old)
}

func main() {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	var ask question
	must("standard input", json.NewDecoder(os.Stdin).Decode(&ask))
	objects := []runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "nodetrust"}},
	}
	for _, policy := range ask.Policies {
		// The API server sets these defaults.
		rules := policy.Spec.MatchConstraints
		equivalent := admissionv1.Equivalent
		all := admissionv1.AllScopes
		if rules.MatchPolicy == nil {
			rules.MatchPolicy = &equivalent
		}
		rules.NamespaceSelector, rules.ObjectSelector = &metav1.LabelSelector{}, &metav1.LabelSelector{}
		for i := range rules.ResourceRules {
			rules.ResourceRules[i].Scope = &all
		}
		objects = append(objects, policy)
	}
	for _, binding := range ask.Bindings {
		objects = append(objects, binding)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := fake.NewSimpleClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}, {Group: "events.k8s.io", Version: "v1"}, {Group: "coordination.k8s.io", Version: "v1"}})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Node"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Event"), meta.RESTScopeNamespace)
	mapper.Add(eventsv1.SchemeGroupVersion.WithKind("Event"), meta.RESTScopeNamespace)
	mapper.Add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), meta.RESTScopeNamespace)
	plugin, err := validating.NewPlugin(nil)
	must("plugin", err)
	plugin.SetExternalKubeClientSet(client)
	plugin.SetExternalKubeInformerFactory(factory)
	plugin.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(scheme.Scheme))
	plugin.SetRESTMapper(mapper)
	plugin.SetAuthorizer(nobody{})
	plugin.SetDrainedNotification(ctx.Done())
	must("plugin", plugin.ValidateInitialization())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if !plugin.WaitForReady() {
		must("plugin", fmt.Errorf("is not ready"))
	}
	interfaces := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	var out answer
	out.Denials = []*string{}
	out.Warnings = []string{}
	decide := func(r request) (bool, error) {
		kind := map[string]string{"nodes": "Node", "events": "Event", "leases": "Lease"}[r.Resource]
		gv := schema.GroupVersion{Group: r.Group, Version: "v1"}
		object, err := typed(r.Object, r.Group, r.Resource)
		if err != nil {
			return false, nil
		}
		old, err := typed(r.OldObject, r.Group, r.Resource)
		if err != nil || !tells(r, object, old) {
			return false, nil
		}
		who := &user.DefaultInfo{Name: r.Username, Extra: r.Extra}
		attributes := admission.NewAttributesRecord(object, old, gv.WithKind(kind), r.Namespace, r.Name,
			gv.WithResource(r.Resource), r.Subresource, admission.Operation(r.Operation), nil, false, who)
		return true, plugin.Validate(ctx, attributes, interfaces)
	}
	// The plugin compiles policies a moment later, so the probe is repeated until it is refused.
	if len(ask.Policies) > 0 {
		probe := request{Operation: "UPDATE", Resource: "nodes", Name: "x", Username: "system:serviceaccount:nodetrust:nodetrust",
			Object: json.RawMessage(`{"metadata":{"name":"x"}}`), OldObject: json.RawMessage(`{"metadata":{"name":"x"}}`)}
		err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
			_, err := decide(probe)
			return err != nil, nil
		})
		must("no policy refuses a token without a node", err)
	}
	for _, r := range ask.Requests {
		known, err := decide(r)
		if !known {
			out.Denials = append(out.Denials, nil)
			continue
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		out.Denials = append(out.Denials, &text)
	}
	checker := validating.TypeChecker{
		SchemaResolver: resolver.NewDefinitionsSchemaResolver(openapi.GetOpenAPIDefinitions, scheme.Scheme),
		RestMapper:     mapper,
	}
	for _, policy := range ask.Policies {
		for _, warning := range checker.Check(policy) {
			out.Warnings = append(out.Warnings, policy.Name+" "+warning.FieldRef+": "+warning.Warning)
		}
	}
	must("standard output", json.NewEncoder(os.Stdout).Encode(out))
}
