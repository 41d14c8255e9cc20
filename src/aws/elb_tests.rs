//! What is sent to Elastic Load Balancing when weights change.

use std::collections::BTreeMap;

use crate::aws::AwsApi;
use crate::aws::elb::RuleWritten;
use crate::clients::fake_wire::{RecordedRequests, answering_wire, test_clock, xml_answer};
use crate::clients::sdk_config::config_over_wire;
use crate::model::ErrorClass;
use crate::model::elb::{Listener, RegisteredTarget, WeightedTargetGroup};
use crate::wire::Request;

const RULE: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener-rule/app/shop/aa/bb/cc";
const LISTENER: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/app/shop/aa/bb";
const NLB: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/net/tcp/aa/bb";
const BLUE: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/blue/1";
const GREEN: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/green/2";

/// The form of a query request.
fn form(request: &Request) -> BTreeMap<String, String> {
    let body = String::from_utf8(request.body().to_vec()).unwrap();
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            if *first == b'%' {
                bytes.push(
                    u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap(),
                );
                rest = &tail[2..];
            } else {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    body.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (plain(k), plain(v)))
        .collect()
}

fn action_of(request: &Request) -> String {
    form(request)["Action"].clone()
}

fn forward(blue: i32, green: i32) -> Vec<WeightedTargetGroup> {
    vec![
        WeightedTargetGroup {
            arn: BLUE.into(),
            weight: blue,
        },
        WeightedTargetGroup {
            arn: GREEN.into(),
            weight: green,
        },
    ]
}

async fn write_weights(
    aws: &AwsApi,
    rule: &str,
    was: &[WeightedTargetGroup],
    forward: &[WeightedTargetGroup],
) -> RuleWritten {
    let written = aws.set_forward_weights(rule, was, forward);
    written.await.unwrap()
}

/// What the rules of these tests forward to.
fn blue_alone() -> Vec<WeightedTargetGroup> {
    let arn = BLUE.into();
    vec![WeightedTargetGroup { arn, weight: 1 }]
}

/// An endpoint whose one rule has `actions`.
fn aws_with(actions: &'static str, default: bool) -> (AwsApi, RecordedRequests) {
    let (wire, asked) = answering_wire(move |request, _| {
        let body = match action_of(request).as_str() {
            "DescribeRules" => format!(
                "<DescribeRulesResponse><DescribeRulesResult><Rules><member><RuleArn>{RULE}</RuleArn><Priority>{}</Priority><IsDefault>{default}</IsDefault>\
                 <Conditions><member><Field>path-pattern</Field><Values><member>/api/*</member></Values><PathPatternConfig><Values><member>/api/*</member></Values></PathPatternConfig></member></Conditions>\
                 <Actions>{actions}</Actions><Transforms><member><Type>url-rewrite</Type><UrlRewriteConfig><Rewrites><member><Regex>^/api</Regex><Replace>/</Replace></member></Rewrites></UrlRewriteConfig></member></Transforms>\
                 </member></Rules></DescribeRulesResult></DescribeRulesResponse>",
                if default { "default" } else { "10" }
            ),
            "DescribeListeners" => format!(
                "<DescribeListenersResponse><DescribeListenersResult><Listeners><member><ListenerArn>{NLB}</ListenerArn><DefaultActions>{actions}</DefaultActions></member></Listeners></DescribeListenersResult></DescribeListenersResponse>"
            ),
            "DescribeTags" => "<DescribeTagsResponse><DescribeTagsResult><TagDescriptions></TagDescriptions></DescribeTagsResult></DescribeTagsResponse>".to_owned(),
            other => format!("<{other}Response><{other}Result></{other}Result></{other}Response>"),
        };
        xml_answer(200, &body)
    });
    (
        AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock())),
        asked,
    )
}

const FORWARD: &str = "<member><Type>authenticate-oidc</Type><Order>1</Order><AuthenticateOidcConfig><Issuer>https://id.example</Issuer><AuthorizationEndpoint>https://id.example/a</AuthorizationEndpoint>\
    <TokenEndpoint>https://id.example/t</TokenEndpoint><UserInfoEndpoint>https://id.example/u</UserInfoEndpoint><ClientId>shop</ClientId><SessionCookieName>c</SessionCookieName><Scope>openid</Scope>\
    <SessionTimeout>600</SessionTimeout><OnUnauthenticatedRequest>authenticate</OnUnauthenticatedRequest><AuthenticationRequestExtraParams><entry><key>prompt</key><value>login</value></entry></AuthenticationRequestExtraParams></AuthenticateOidcConfig></member>\
    <member><Type>forward</Type><Order>2</Order><TargetGroupArn>arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/blue/1</TargetGroupArn><ForwardConfig><TargetGroups><member><TargetGroupArn>arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/blue/1</TargetGroupArn><Weight>1</Weight></member></TargetGroups>\
    <TargetGroupStickinessConfig><Enabled>true</Enabled><DurationSeconds>3600</DurationSeconds></TargetGroupStickinessConfig></ForwardConfig></member>";

#[tokio::test(start_paused = true)]
async fn new_weights_leave_everything_else_of_a_rule_as_it_was() {
    let (aws, asked) = aws_with(FORWARD, false);
    let written = write_weights(&aws, RULE, &blue_alone(), &forward(75, 25)).await;
    assert_eq!(written, RuleWritten::AsAsked);
    let all = asked.all_requests();
    assert_eq!(
        all.iter().map(action_of).collect::<Vec<_>>(),
        ["DescribeRules", "ModifyRule"]
    );
    // Every field of every action is compared: what is not sent back is lost.
    let sent = form(&all[1]);
    let expected = [
        ("RuleArn", RULE),
        ("Actions.member.1.Type", "authenticate-oidc"),
        ("Actions.member.1.Order", "1"),
        (
            "Actions.member.1.AuthenticateOidcConfig.Issuer",
            "https://id.example",
        ),
        (
            "Actions.member.1.AuthenticateOidcConfig.AuthorizationEndpoint",
            "https://id.example/a",
        ),
        (
            "Actions.member.1.AuthenticateOidcConfig.TokenEndpoint",
            "https://id.example/t",
        ),
        (
            "Actions.member.1.AuthenticateOidcConfig.UserInfoEndpoint",
            "https://id.example/u",
        ),
        ("Actions.member.1.AuthenticateOidcConfig.ClientId", "shop"),
        (
            "Actions.member.1.AuthenticateOidcConfig.SessionCookieName",
            "c",
        ),
        ("Actions.member.1.AuthenticateOidcConfig.Scope", "openid"),
        (
            "Actions.member.1.AuthenticateOidcConfig.SessionTimeout",
            "600",
        ),
        (
            "Actions.member.1.AuthenticateOidcConfig.OnUnauthenticatedRequest",
            "authenticate",
        ),
        (
            "Actions.member.1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.key",
            "prompt",
        ),
        (
            "Actions.member.1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.value",
            "login",
        ),
        // No answer has the client's secret, so ELB is told to keep the one that it has.
        (
            "Actions.member.1.AuthenticateOidcConfig.UseExistingClientSecret",
            "true",
        ),
        ("Actions.member.2.Type", "forward"),
        ("Actions.member.2.Order", "2"),
        (
            "Actions.member.2.ForwardConfig.TargetGroups.member.1.TargetGroupArn",
            BLUE,
        ),
        (
            "Actions.member.2.ForwardConfig.TargetGroups.member.1.Weight",
            "75",
        ),
        (
            "Actions.member.2.ForwardConfig.TargetGroups.member.2.TargetGroupArn",
            GREEN,
        ),
        (
            "Actions.member.2.ForwardConfig.TargetGroups.member.2.Weight",
            "25",
        ),
        (
            "Actions.member.2.ForwardConfig.TargetGroupStickinessConfig.Enabled",
            "true",
        ),
        (
            "Actions.member.2.ForwardConfig.TargetGroupStickinessConfig.DurationSeconds",
            "3600",
        ),
    ];
    let mut expected: BTreeMap<String, String> = expected
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    expected.insert("Action".into(), "ModifyRule".into());
    expected.insert("Version".into(), "2015-12-01".into());
    // No conditions, no transforms, no TargetGroupArn beside the configuration, no client secret.
    assert_eq!(sent, expected);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_somebody_has_changed_since_it_was_looked_at_is_left_as_it_is() {
    let (aws, asked) = aws_with(FORWARD, false);
    for was in [forward(100, 0), forward(1, 0), vec![]] {
        let written = write_weights(&aws, RULE, &was, &forward(75, 25)).await;
        assert_eq!(written, RuleWritten::ChangedMeanwhile);
    }
    let all = asked.all_requests();
    assert!(all.iter().all(|r| action_of(r) == "DescribeRules"));
}

#[tokio::test(start_paused = true)]
async fn targets_of_a_target_group_that_is_gone_are_gone_with_it() {
    let (wire, _) = answering_wire(|_, _| {
        xml_answer(
            400,
            "<ErrorResponse><Error><Type>Sender</Type><Code>TargetGroupNotFound</Code><Message>gone</Message></Error></ErrorResponse>",
        )
    });
    let aws = AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock()));
    let target = crate::model::elb::RegisteredTarget {
        instance: "i-1".to_owned(),
        port: None,
    };
    assert!(aws.deregister_targets(BLUE, &[target]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_default_rule_is_changed_on_its_listener() {
    let (aws, asked) = aws_with(FORWARD, true);
    let written = write_weights(&aws, RULE, &blue_alone(), &forward(100, 0)).await;
    assert_eq!(written, RuleWritten::AsAsked);
    let sent = form(&asked.all_requests()[1]);
    assert_eq!(
        (sent["Action"].as_str(), sent["ListenerArn"].as_str()),
        ("ModifyListener", LISTENER)
    );
    assert_eq!(
        sent["DefaultActions.member.2.ForwardConfig.TargetGroups.member.2.Weight"],
        "0"
    );
    assert_eq!(
        sent["DefaultActions.member.1.AuthenticateOidcConfig.UseExistingClientSecret"],
        "true"
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_load_balancer_is_sent_no_stickiness_it_does_not_have() {
    let plain = "<member><Type>forward</Type><Order>1</Order><ForwardConfig><TargetGroups><member><TargetGroupArn>arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/blue/1</TargetGroupArn></member></TargetGroups><TargetGroupStickinessConfig><Enabled>false</Enabled></TargetGroupStickinessConfig></ForwardConfig></member>";
    let (aws, asked) = aws_with(plain, false);
    let written = write_weights(&aws, NLB, &blue_alone(), &forward(10, 90)).await;
    assert_eq!(written, RuleWritten::AsAsked);
    let sent = form(&asked.all_requests()[1]);
    assert_eq!(
        (sent["Action"].as_str(), sent["ListenerArn"].as_str()),
        ("ModifyListener", NLB)
    );
    assert!(!sent.keys().any(|k| k.contains("Stickiness")), "{sent:?}");
    let listener = Listener {
        arn: NLB.into(),
        load_balancer: String::new(),
        port: None,
        protocol: None,
        tags: BTreeMap::new(),
    };
    let rules = aws.describe_rules(&listener).await.unwrap();
    assert_eq!(
        (
            rules[0].arn.as_str(),
            rules[0].is_default,
            rules[0].priority.as_str()
        ),
        (NLB, true, "default")
    );
    assert_eq!(
        rules[0].forward,
        [WeightedTargetGroup {
            arn: BLUE.into(),
            weight: 1
        }]
    );
}

#[tokio::test(start_paused = true)]
async fn weights_that_would_answer_503_are_refused_before_anything_is_sent() {
    let (aws, asked) = aws_with(FORWARD, false);
    for (blue, green) in [(0, 0), (1000, 0), (-1, 1)] {
        let error = aws
            .set_forward_weights(RULE, &blue_alone(), &forward(blue, green))
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Invalid);
    }
    let (fixed, _) = aws_with(
        "<member><Type>fixed-response</Type><FixedResponseConfig><StatusCode>404</StatusCode></FixedResponseConfig></member>",
        false,
    );
    assert_eq!(
        fixed
            .set_forward_weights(RULE, &[], &forward(1, 1))
            .await
            .unwrap_err()
            .class,
        ErrorClass::Invalid
    );
    assert!(
        asked
            .all_requests()
            .iter()
            .all(|r| action_of(r) == "DescribeRules")
    );
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_rule_does_not_depend_on_its_weights() {
    let (before, _) = aws_with(FORWARD, false);
    let after = "<member><Type>forward</Type><ForwardConfig><TargetGroups><member><TargetGroupArn>x</TargetGroupArn><Weight>3</Weight></member></TargetGroups></ForwardConfig></member>";
    let normal = "<member><Type>forward</Type><TargetGroupArn>x</TargetGroupArn></member>";
    let rule = async |actions: &'static str| {
        aws_with(actions, false)
            .0
            .describe_rules_by_arn(&[RULE.to_owned()], Default::default())
            .await
            .unwrap()
            .remove(0)
    };
    assert_eq!(rule(after).await.rest, rule(normal).await.rest);
    let read = before
        .describe_rules_by_arn(&[RULE.to_owned()], Default::default())
        .await
        .unwrap()
        .remove(0);
    assert_eq!(read.conditions, ["path-pattern=/api/*"]);
    assert_eq!(read.stickiness_seconds, Some(3600));
    assert_eq!(read.listener, LISTENER);
    assert_eq!(
        read.rest["Transforms"][0]["UrlRewriteConfig"]["Rewrites"][0]["Regex"],
        "^/api"
    );
    assert_eq!(
        read.rest["Actions"][0]["AuthenticateOidcConfig"]["ClientId"],
        "shop"
    );
    assert_eq!(
        read.rest["Actions"][1]["ForwardConfig"]["TargetGroups"],
        serde_json::json!([])
    );
}

#[tokio::test(start_paused = true)]
async fn tags_are_asked_for_twenty_at_a_time() {
    let (wire, asked) = answering_wire(|request, _| {
        let arns: Vec<String> = form(request)
            .into_iter()
            .filter(|(k, _)| k.starts_with("ResourceArns"))
            .map(|(_, v)| v)
            .collect();
        let each: String = arns.iter().map(|a| format!("<member><ResourceArn>{a}</ResourceArn><Tags><member><Key>k</Key><Value>{a}</Value></member></Tags></member>")).collect();
        xml_answer(
            200,
            &format!(
                "<DescribeTagsResponse><DescribeTagsResult><TagDescriptions>{each}</TagDescriptions></DescribeTagsResult></DescribeTagsResponse>"
            ),
        )
    });
    let aws = AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock()));
    let arns: Vec<String> = (0..45).map(|n| format!("arn:{n}")).collect();
    let tags = aws.describe_tags(&arns).await.unwrap();
    assert_eq!((tags.len(), asked.all_requests().len()), (45, 3));
    assert!(arns.iter().all(|arn| tags[arn]["k"] == *arn));
}

/// An endpoint with `all` target groups of one VPC, of which `gone` are deleted after they were listed.
fn groups_with_gone(all: usize, gone: &'static [usize]) -> (AwsApi, RecordedRequests) {
    let (wire, asked) = answering_wire(move |request, _| {
        let form = form(request);
        let arns: Vec<&String> = form
            .iter()
            .filter(|(k, _)| k.starts_with("ResourceArns") || *k == "TargetGroupArn")
            .map(|(_, v)| v)
            .collect();
        if arns.iter().any(|a| gone.iter().any(|g| **a == arn(*g))) {
            return xml_answer(
                400,
                "<ErrorResponse><Error><Type>Sender</Type><Code>TargetGroupNotFound</Code><Message>One or more target groups not found</Message></Error></ErrorResponse>",
            );
        }
        let body: String = match form["Action"].as_str() {
            "DescribeTargetGroups" => (0..all)
                .map(|n| format!("<member><TargetGroupArn>{}</TargetGroupArn><TargetGroupName>g{n}</TargetGroupName><VpcId>vpc-1</VpcId><TargetType>instance</TargetType></member>", arn(n)))
                .collect(),
            "DescribeTags" => arns
                .iter()
                .map(|a| format!("<member><ResourceArn>{a}</ResourceArn><Tags><member><Key>k</Key><Value>{a}</Value></member></Tags></member>"))
                .collect(),
            _ => String::new(),
        };
        let (op, list) = match form["Action"].as_str() {
            "DescribeTargetGroups" => ("DescribeTargetGroups", "TargetGroups"),
            "DescribeTags" => ("DescribeTags", "TagDescriptions"),
            _ => ("DescribeTargetGroupAttributes", "Attributes"),
        };
        xml_answer(
            200,
            &format!(
                "<{op}Response><{op}Result><{list}>{body}</{list}></{op}Result></{op}Response>"
            ),
        )
    });
    (
        AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock())),
        asked,
    )
}

fn arn(n: usize) -> String {
    format!("arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/g{n}/1")
}

#[tokio::test(start_paused = true)]
async fn a_target_group_that_is_deleted_while_it_is_read_takes_no_other_with_it() {
    let (aws, asked) = groups_with_gone(45, &[3, 21, 22]);
    let groups = aws.describe_target_groups("vpc-1").await.unwrap();
    let names: Vec<String> = groups.iter().map(|g| g.name.clone()).collect();
    let rest: Vec<String> = (0..45)
        .filter(|n| ![3, 21, 22].contains(n))
        .map(|n| format!("g{n}"))
        .collect();
    assert_eq!(names, rest);
    assert!(groups.iter().all(|g| g.tags["k"] == g.arn));
    let tags = asked
        .all_requests()
        .iter()
        .filter(|r| action_of(r) == "DescribeTags")
        .count();
    assert!(tags < 25, "{tags} calls of DescribeTags");
}

#[tokio::test(start_paused = true)]
async fn tags_that_may_not_be_read_are_no_tags_that_are_not_there() {
    let (wire, _) = answering_wire(|_, _| {
        xml_answer(
            403,
            "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>",
        )
    });
    let aws = AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock()));
    let error = aws.describe_tags(&[arn(1), arn(2)]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_gone_leaves_the_others_readable() {
    let rule = |n: &str| RULE.replace("/cc", &format!("/{n}"));
    let (wire, _) = answering_wire(|request, _| {
        let form = form(request);
        let asked: Vec<&String> = form
            .iter()
            .filter(|(k, _)| k.starts_with("RuleArns"))
            .map(|(_, v)| v)
            .collect();
        if asked.iter().any(|arn| arn.ends_with("/gone")) {
            return xml_answer(
                400,
                "<ErrorResponse><Error><Code>RuleNotFound</Code><Message>One or more rules not found</Message></Error></ErrorResponse>",
            );
        }
        let each: String = asked
            .iter()
            .map(|arn| format!("<member><RuleArn>{arn}</RuleArn><Priority>1</Priority><IsDefault>false</IsDefault><Actions>{FORWARD}</Actions></member>"))
            .collect();
        xml_answer(
            200,
            &format!(
                "<DescribeRulesResponse><DescribeRulesResult><Rules>{each}</Rules></DescribeRulesResult></DescribeRulesResponse>"
            ),
        )
    });
    let aws = AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock()));
    let arns = [rule("a"), rule("gone"), rule("b")];
    let found = aws
        .describe_rules_by_arn(&arns, BTreeMap::new())
        .await
        .unwrap();
    let found: Vec<String> = found.into_iter().map(|r| r.arn).collect();
    assert_eq!(found, [rule("a"), rule("b")]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_ending_is_left_out_when_targets_are_registered() {
    let (wire, asked) = answering_wire(|request, _| {
        let form = form(request);
        if form.values().any(|v| v == "i-ending") {
            return xml_answer(
                400,
                "<ErrorResponse><Error><Code>InvalidTarget</Code><Message>The following targets are not in a running state and cannot be registered: 'i-ending'</Message></Error></ErrorResponse>",
            );
        }
        xml_answer(
            200,
            "<RegisterTargetsResponse><RegisterTargetsResult/></RegisterTargetsResponse>",
        )
    });
    let aws = AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock()));
    let at_group_port = |id: &str| RegisteredTarget {
        instance: id.to_owned(),
        port: None,
    };
    let targets = ["i-1", "i-ending", "i-2"].map(at_group_port);
    aws.register_targets(BLUE, &targets).await.unwrap();
    let ending = [at_group_port("i-ending")];
    aws.register_targets(BLUE, &ending).await.unwrap();
    let all = asked.all_requests();
    let taken: Vec<String> = all
        .iter()
        .map(form)
        .filter(|f| !f.values().any(|v| v == "i-ending"))
        .flat_map(|f| f.into_iter().filter(|(k, _)| k.ends_with(".Id")))
        .map(|(_, id)| id)
        .collect();
    assert_eq!(taken, ["i-1", "i-2"]);
}
